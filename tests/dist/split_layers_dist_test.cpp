#include "stoa/dist/split_layers.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/dist/world.h"
#include "stoa/optim/optimizer.h"
#include "support/processes.h"
#include "support/thrown.h"

namespace stoa::dist {
namespace {

constexpr std::int64_t kLayers = 5, kWidth = 6;

/// x table, then layers tanh(x weight) + x shift, then x table^T; one shift for all layers.
struct Chain : torch::nn::Module, nn::SplitsLayers {
  explicit Chain(std::int64_t count = kLayers) : count(count), own{0, count} {
    const auto make = [&](const std::string& name, std::int64_t rows, double start) {
      const auto values = at::linspace(start, start + 7, rows * kWidth, at::kDouble).sin().div(2);
      return register_parameter(name, values.view({rows, kWidth}));
    };
    table = make("table", 4, 1);
    shift = make("shift", 1, 2);
    for (std::int64_t i = 0; i < count; ++i)
      weights.push_back(make(format("weight{}", i), kWidth, 0.3 * static_cast<double>(i)));
  }
  std::int64_t layers() const override { return count; }
  std::map<std::string, std::vector<std::int64_t>> users() const override {
    std::map<std::string, std::vector<std::int64_t>> users{{"table", {0, count - 1}}};
    for (std::int64_t i = 0; i < count; ++i) {
      users["shift"].push_back(i);
      users[format("weight{}", i)] = {i};
    }
    return users;
  }
  void require_stages(std::int64_t stages) const override { asked = stages; }
  void use_layers(nn::LayerRange range, std::shared_ptr<const nn::LayerExchange> to) override {
    own = range;
    exchange = std::move(to);
  }
  at::Tensor forward(const at::Tensor& input) {
    auto x = own.begin == 0 ? at::matmul(input, table)
                            : exchange->receive({input.size(0), kWidth}, table.options());
    for (std::int64_t i = own.begin; i < own.end; ++i)
      x = at::matmul(x, weights[static_cast<std::size_t>(i)]).tanh() + x * shift;
    return own.end < count ? exchange->send(x) : at::matmul(x, table.t()).square().mean();
  }

  std::int64_t count;
  mutable std::int64_t asked = 0;
  nn::LayerRange own;
  std::shared_ptr<const nn::LayerExchange> exchange;
  at::Tensor table, shift;
  std::vector<at::Tensor> weights;
};

at::Tensor micro_batch(std::int64_t i) {
  const auto rows = 2 + i % 2;
  return at::linspace(-1, 1 + static_cast<double>(i), rows * 4, at::kDouble).cos().view({rows, 4});
}

/// Gradients of `count` micro-batches, of which `ahead` are under way; returns the last stage's losses.
std::vector<double> learn(Chain& chain, std::int64_t count, std::int64_t ahead) {
  std::vector<at::Tensor> losses;
  for (std::int64_t i = 0; i < count + ahead; ++i) {
    if (i < count) losses.push_back(chain.forward(micro_batch(i)));
    // whatever its own gradient is, a link passes on that of the next stage
    if (i >= ahead) (losses[static_cast<std::size_t>(i - ahead)] * 1).backward();
  }
  std::vector<double> values;
  for (const auto& loss : losses) values.push_back(loss.item<double>());
  return values;
}

double apart(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

TEST(LayersOfStage, DifferByOneAtMost) {
  std::string text;
  for (int stage = 0; stage < 3; ++stage) {
    const auto [begin, end] = layers_of_stage(7, stage, 3);
    text += format("{}-{} ", begin, end);
  }
  EXPECT_EQ(text, "0-2 2-4 4-7 ");
}

STOA_PROCESS_TEST(SplitLayers, LearnWhatOneProcessDoes, 2, 3) {
  const auto world = World::join(read_place());
  Chain one, many;
  const SplitLayers layers(many, world->all_shared());
  EXPECT_EQ(many.asked, world->size());
  EXPECT_EQ(many.weights.at(0).numel(), layers.stage() == 0 ? kWidth * kWidth : 0);
  optim::OptimizerOptions rule;
  rule.kind = optim::OptimizerKind::kLamb;
  rule.lr = 0.05;
  const auto optimizer = optim::make_optimizer(nn::distinct_parameters(one), rule);
  auto parameters = nn::distinct_parameters(many);
  auto sum = layers.sum_over_stages(parameters, {});
  const auto split = optim::make_optimizer(std::move(parameters), rule, std::move(sum));
  for (int step = 0; step < 4; ++step) {
    optimizer->zero_grad();
    split->zero_grad();
    const auto wanted = learn(one, 4, 0);
    const auto found = layers.of_last(learn(many, 4, layers.stages() - 1 - layers.stage()));
    layers.add_shared_gradients();
    for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(found[i], wanted[i], 1e-12);
    const auto scale = optimizer->clipping(0.005, false), split_scale = split->clipping(0.005, false);
    EXPECT_GT(scale.norm, 0.005);
    EXPECT_NEAR(split_scale.norm, scale.norm, 1e-12);
    optimizer->step(rule.lr, scale);
    split->step(rule.lr, split_scale);
  }
  const auto own = layers.own(nn::module_state(one));
  for (const auto& [name, tensor] : nn::module_state(many)) {
    ASSERT_EQ(tensor.sizes(), own.at(name).sizes()) << name;
    if (tensor.numel() == 0) continue;
    EXPECT_LT(apart(tensor, own.at(name)), 1e-12) << name;
  }
  const auto weights = layers.whole(nn::module_state(many)), state = layers.whole(split->state());
  EXPECT_EQ(weights.empty(), layers.stage() > 0);
  for (const auto& [name, tensor] : weights)
    EXPECT_LT(apart(tensor, nn::module_state(one).at(name)), 1e-12) << name;
  for (const auto& [name, tensor] : state)
    EXPECT_LT(apart(tensor, optimizer->state().at(name)), 1e-12) << name;
  EXPECT_EQ(layers.of_last(format("stage {}", layers.stage())), format("stage {}", layers.stages() - 1));
}

STOA_PROCESS_TEST(SplitLayers, ExchangeOneSumEachWayForEachMicroBatch, 3) {
  const auto world = World::join(read_place());
  Chain chain;
  const SplitLayers layers(chain, world->all_shared());
  const auto before = world->all().traffic();
  learn(chain, 3, layers.stages() - 1 - layers.stage());
  const auto after = world->all().traffic();
  const std::int64_t neighbours = layers.stage() == 1 ? 2 : 1, rows = 2 + 3 + 2;
  EXPECT_EQ(after.messages - before.messages, 3 * neighbours);
  EXPECT_EQ(after.bytes - before.bytes, neighbours * rows * kWidth * 8);
  layers.add_shared_gradients();  // waits until all has arrived
}

STOA_PROCESS_TEST(SplitLayers, JoinOnTheFirstRank, 3) {
  const auto world = World::join(read_place());
  Chain one, many;
  SplitLayers layers(many, world->all_shared());
  {
    const at::NoGradGuard no_gradients;
    for (std::int64_t i = 0; i < 20; ++i) many.forward(micro_batch(i));  // nothing waits for their ends
  }
  layers.join(many, nn::module_state(many));
  EXPECT_EQ(layers.is_split(), world->rank() > 0);
  if (world->rank() > 0) return;
  EXPECT_TRUE(at::equal(many.forward(micro_batch(0)), one.forward(micro_batch(0))));
}

struct NoLayers : torch::nn::Module {};

STOA_PROCESS_TEST(SplitLayers, SayWhereThereAreTooFew, 3) {
  const auto world = World::join(read_place());
  NoLayers none;
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] { SplitLayers(none, world->all_shared()); }),
                       "no layers that can be split");
  Chain two(2);
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] { SplitLayers(two, world->all_shared()); }),
                       "set it to 2 at most");
}

}  // namespace
}  // namespace stoa::dist
