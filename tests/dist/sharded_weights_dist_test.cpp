// Models whose weights are shared out (ZeRO 3) train as one process does, hold 1/N and send what the paper
// says.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/linear.h>

#include <string>

#include "stoa/dist/environment.h"
#include "stoa/dist/gathered_weights.h"
#include "stoa/dist/sharded_optimizer.h"
#include "stoa/dist/shards.h"
#include "stoa/dist/world.h"
#include "stoa/nn/layer_weights.h"
#include "stoa/optim/state.h"
#include "support/parameters.h"
#include "support/processes.h"
#include "support/tensor_meter.h"

namespace stoa::dist {
namespace {

using optim::OptimizerKind;
using optim::OptimizerOptions;
using test::distance;
using Gradients = ShardedOptimizer::Gradients;

constexpr double kLr = 0.01;

/// Layers of their own, one that all of them share besides, and what stands in front and behind.
class Tower : public torch::nn::Module, public nn::BringsWeights {
 public:
  Tower(std::int64_t width, std::int64_t depth, bool again = false) : depth_(depth), again_(again) {
    at::manual_seed(3);
    front = register_module("front", torch::nn::Linear(5, width));
    register_module("layers", layers);
    for (std::int64_t i = 0; i < depth_; ++i) layers->push_back(torch::nn::Linear(width, width));
    shared = register_module("shared", torch::nn::Linear(width, width));
    back = register_module("back", torch::nn::Linear(width, 1));
    to(at::kDouble);
    layers->named_parameters()["1.bias"].set_requires_grad(false);
  }

  at::Tensor forward(const at::Tensor& x) {
    auto y = front->forward(x);
    for (std::int64_t i = 0; i < depth_; ++i) {
      const nn::Block layer = [this, i](const std::vector<at::Tensor>& inputs) {
        const auto own = layers->ptr<torch::nn::LinearImpl>(static_cast<std::size_t>(i));
        return std::vector<at::Tensor>{inputs[0] + at::tanh(own->forward(shared->forward(inputs[0])))};
      };
      const nn::Block twice = [layer](const std::vector<at::Tensor>& inputs) {
        return nn::recompute(layer, inputs);
      };
      y = nn::with_weights(weights_, i, again_ ? twice : layer, {y})[0];
    }
    return back->forward(y);
  }

  std::map<std::string, std::int64_t> layer_parameters() const override {
    std::map<std::string, std::int64_t> parameters;
    for (std::int64_t i = 0; i < depth_; ++i)
      for (const char* name : {"weight", "bias"})
        parameters.emplace("layers." + std::to_string(i) + "." + name, i);
    return parameters;
  }
  void use_weights(std::shared_ptr<const nn::LayerWeights> weights) override {
    weights_ = std::move(weights);
  }

  torch::nn::Linear front{nullptr}, shared{nullptr}, back{nullptr};
  torch::nn::ModuleList layers;

 private:
  std::shared_ptr<const nn::LayerWeights> weights_;
  std::int64_t depth_;
  bool again_;
};

OptimizerOptions options_of(OptimizerKind kind) {
  OptimizerOptions options;
  options.kind = kind;
  options.lr = kLr;
  options.weight_decay = 0.1;
  return options;
}

/// What a rank has of a step: two micro-batches.
std::vector<at::Tensor> samples(int step, int rank) {
  at::manual_seed(static_cast<std::uint64_t>(100 * step + rank));
  const auto x = at::randn({2, 3, 5}, at::kDouble);
  return {x[0], x[1]};
}

void backward(Tower& model, const at::Tensor& x) {
  (model.forward(x) - x.sum(1, true)).square().sum().backward();
}

/// A model of which this rank has its shards, and its update rule.
struct Shared {
  Shared(std::int64_t width, std::int64_t depth, bool again, const OptimizerOptions& options, Group& group)
      : model(width, depth, again),
        weights(model, group),
        optimizer(nn::distinct_parameters(model), options, group, {}, &weights),
        buckets(optimizer.make_buckets(Gradients::kParts, 1024)) {}

  void step(const std::vector<at::Tensor>& batch, double limit = 0) {
    optimizer.zero_grad();
    {
      const auto pass = weights.pass();
      for (std::size_t i = 0; i < batch.size(); ++i) {
        if (i + 1 == batch.size()) buckets->arm();
        backward(model, batch[i]);
      }
      buckets->finish();
    }
    optimizer.step(kLr, optimizer.clipping(limit, false));
  }

  Tower model;
  GatheredWeights weights;
  ShardedOptimizer optimizer;
  std::unique_ptr<GradientBuckets> buckets;
};

void expect_close(const State& found, const State& wanted, const std::string& what) {
  ASSERT_EQ(found.size(), wanted.size()) << what;
  for (const auto& [name, tensor] : wanted)
    EXPECT_LT(distance(found.at(name), tensor), 1e-12) << what << name;
}

STOA_PROCESS_TEST(SharedWeights, TrainAsThoseOfOneProcess, 2, 3) {
  const auto world = World::join(read_place());
  for (const auto kind : {OptimizerKind::kSgd, OptimizerKind::kAdamW, OptimizerKind::kLamb}) {
    Tower one(7, 4);
    const auto rule = optim::make_optimizer(nn::distinct_parameters(one), options_of(kind));
    Shared many(7, 4, kind == OptimizerKind::kLamb, options_of(kind), world->all());
    for (int step = 0; step < 20; ++step) {
      rule->zero_grad();
      for (int rank = 0; rank < world->size(); ++rank)
        for (const auto& x : samples(step, rank)) backward(one, x);
      rule->step(kLr, rule->clipping(5, false));
      many.step(samples(step, world->rank()), 5);
    }
    const auto what = std::to_string(static_cast<int>(kind)) + " ";
    const auto first = world->rank() == 0;
    expect_close(many.weights.whole(many.model), first ? nn::module_state(one) : State(), what);
    expect_close(many.optimizer.whole_of(many.optimizer.state()), first ? rule->state() : State(), what);
    {  // without gradients: an evaluation
      const at::NoGradGuard no_gradients;
      const auto pass = many.weights.pass();
      const auto x = samples(0, 0)[0];
      EXPECT_LT(distance(many.model.forward(x), one.forward(x)), 1e-12);
    }
    const auto state = nn::module_state(one);
    optim::copy_state(many.weights.own_of(state, "here"), many.weights.own(many.model), "here");
    many.weights.join(many.model);
    if (first) expect_close(nn::module_state(many.model), state, what);
  }
}

STOA_PROCESS_TEST(SharedWeights, AreHeldOnceByAllTogetherAndSentAsThePaperSays, 2, 4) {
  auto& meter = test::TensorMeter::get();
  const auto world = World::join(read_place());
  auto& group = world->all();
  constexpr std::int64_t kWidth = 64, kDepth = 16;  // all sizes but one are those that 4 ranks divide
  meter.start();
  Shared many(kWidth, kDepth, false, options_of(OptimizerKind::kAdamW), group);
  const std::vector<at::Tensor> batch = {samples(0, world->rank())[0]};
  many.step(batch);  // the first one counts
  const auto before = group.traffic().bytes;
  many.step(batch);
  const auto sent = group.traffic().bytes - before;

  std::int64_t own = 0, rest = 0, frozen = 0, trained = 0;  // bytes, filled up to what all ranks divide
  const auto layers = many.model.layer_parameters();
  for (const auto& [name, tensor, slices] : nn::distinct_parameters(many.model)) {
    const auto bytes = shard_width(tensor.numel(), world->size()) * world->size() *
                       static_cast<std::int64_t>(tensor.element_size());
    (layers.contains(name) ? own : rest) += bytes;
    if (!tensor.requires_grad()) frozen += bytes;
    trained += tensor.requires_grad() ? 1 : 0;
    EXPECT_EQ(tensor.storage().nbytes(), 0u) << name;
    EXPECT_FALSE(tensor.grad().defined()) << name;
    EXPECT_THROW(tensor.sum(), c10::Error) << name;
  }
  // layers are gathered twice, all else once; norms take one more number of each parameter to be summed
  const std::int64_t ranks = world->size(), norms = 2 * (ranks - 1) * (trained * 8 / ranks);
  EXPECT_EQ(sent, (3 * own + 2 * rest - frozen) * (ranks - 1) / ranks + norms);
  EXPECT_LE(sent, 3 * (own + rest) * (ranks - 1) / ranks + norms);

  const auto shards = (own + rest + 2 * (own + rest - frozen)) / world->size();
  constexpr double kScratch = 65536;  // the update rule's, whatever the size
  EXPECT_NEAR(meter.held(), static_cast<double>(shards) + kScratch, 2048)
      << "weights and both moments, and no gradients";
  meter.start();
  many.step(batch);
  // sums of its part; of three layers weights, of three more gradients as they are sent and as they come
  const auto most = (own + rest) / world->size() + 9 * own / kDepth + 4 * rest;
  EXPECT_LT(meter.peak(), static_cast<double>(most));
  EXPECT_LT(static_cast<double>(most), 0.85 * static_cast<double>(2 * (own + rest)))
      << "weights and gradients";
}

}  // namespace
}  // namespace stoa::dist
