#include "stoa/dist/split_weights.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "stoa/dist/world.h"
#include "stoa/nn/attention.h"
#include "stoa/nn/mlp.h"
#include "stoa/nn/split_vocabulary.h"
#include "stoa/ops/dropout.h"
#include "support/processes.h"
#include "support/thrown.h"

namespace stoa::dist {
namespace {

/// x + attention, then x + perceptron; a norm that is not split between.
struct Block : torch::nn::Module {
  explicit Block(double dropout, ops::Activation last = ops::Activation::kNone) {
    attention = register_module("attention", nn::Attention(nn::AttentionOptions{24, 6, dropout}));
    mlp = register_module("mlp", nn::Mlp(nn::MlpOptions{24, 36, dropout, ops::Activation::kGeluErf, last}));
    scale = register_parameter("scale", at::linspace(0.5, 1.5, 24));
  }
  at::Tensor forward(const at::Tensor& x) {
    const auto y = (x + attention->forward(x)) * scale;
    return y + mlp->forward(y);
  }
  nn::Attention attention{nullptr};
  nn::Mlp mlp{nullptr};
  at::Tensor scale;
};

struct Result {
  at::Tensor output, input_gradient;
  std::map<std::string, at::Tensor> gradients;
};

/// One forward and backward pass with the same numbers wherever it runs.
Result pass(Block& block, at::ScalarType type) {
  block.to(type);
  block.zero_grad();
  const auto x = at::linspace(-1, 1, 3 * 5 * 24, type).sin().mul(2).view({3, 5, 24}).requires_grad_();
  const ops::BatchPartScope part({0, 7});
  const auto output = block.forward(x);
  (output * at::linspace(0, 3, output.numel(), type).cos().view_as(output)).sum().backward();
  Result result{output.detach(), x.grad(), {}};
  for (const auto& parameter : nn::distinct_parameters(block))
    result.gradients.emplace(parameter.name, parameter.tensor.grad());
  return result;
}

Block drawn(double dropout, ops::Activation last = ops::Activation::kNone) {
  at::manual_seed(3);
  return Block(dropout, last);
}

double apart(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>() / b.abs().max().item<double>();
}

void expect_equal_to_one_process(double dropout, ops::Activation last, at::ScalarType type, double bound) {
  const auto world = World::join(read_place());
  Block whole = drawn(dropout, last), split = drawn(dropout, last);
  const auto wanted = pass(whole, type);
  const SplitWeights weights(split, world->all_shared());
  EXPECT_EQ(split.mlp->in->weight.size(0), 36 / world->size());
  EXPECT_EQ(split.attention->qkv_weight.size(0), 72 / world->size());
  const auto found = pass(split, type);
  EXPECT_LT(apart(found.output, wanted.output), bound);
  EXPECT_LT(apart(found.input_gradient, wanted.input_gradient), bound);
  const auto gradients = weights.whole(found.gradients);
  for (const auto& [name, gradient] : wanted.gradients)
    EXPECT_LT(apart(gradients.at(name), gradient), bound) << name;
}

STOA_PROCESS_TEST(SplitWeights, ComputeWhatOneProcessDoes, 1, 2, 3) {
  expect_equal_to_one_process(0, ops::Activation::kNone, at::kDouble, 1e-12);
}

STOA_PROCESS_TEST(SplitWeights, DropTheSameHeadsAndHiddenUnits, 2) {
  expect_equal_to_one_process(0.3, ops::Activation::kNone, at::kFloat, 2e-5);
}

STOA_PROCESS_TEST(SplitWeights, ApplyTheFunctionBehindTheSum, 2) {
  expect_equal_to_one_process(0, ops::Activation::kGeluTanh, at::kDouble, 1e-12);
}

STOA_PROCESS_TEST(SplitWeights, SendOneSumEachWayForEachPair, 3) {
  const auto world = World::join(read_place());
  Block block = drawn(0);
  const SplitWeights weights(block, world->all_shared());
  const auto before = world->all().traffic();
  pass(block, at::kFloat);
  // forward and backward of two pairs: all-reduces of [3, 5, 24], 2 (N - 1) messages of a third each
  EXPECT_EQ(world->all().traffic().messages - before.messages, 4 * 2 * 2);
  EXPECT_EQ(world->all().traffic().bytes - before.bytes, 4 * 2 * 2 * (3 * 5 * 24 * 4 / 3));
}

STOA_PROCESS_TEST(SplitWeights, GiveWholeStatesAndTakeThem, 2) {
  const auto world = World::join(read_place());
  Block whole = drawn(0), split = drawn(0);
  SplitWeights weights(split, world->all_shared());
  const auto state = nn::module_state(whole);
  for (const auto& [name, tensor] : weights.whole(nn::module_state(split)))
    EXPECT_TRUE(at::equal(tensor, state.at(name))) << name;
  const auto first = weights.whole_on_first(nn::module_state(split));
  ASSERT_EQ(first.size(), world->rank() == 0 ? state.size() : 0);
  for (const auto& [name, tensor] : first) EXPECT_TRUE(at::equal(tensor, state.at(name))) << name;
  for (const auto& [name, tensor] : weights.shares(state))
    EXPECT_TRUE(at::equal(tensor, nn::module_state(split).at(name))) << name;
  EXPECT_TRUE(weights.is_share("mlp.in.weight.exp_avg"));
  EXPECT_FALSE(weights.is_share("mlp.out.bias"));
  weights.join(split);
  EXPECT_TRUE(at::equal(pass(split, at::kDouble).output, pass(whole, at::kDouble).output));
}

/// Keeps what SplitWeights hands out, and has a table of 11 tokens.
struct Vocabulary : torch::nn::Module, nn::SplitsWeights {
  Vocabulary() {
    table = register_parameter("table", at::linspace(-1, 1, 11 * 6, at::kDouble).sin().view({11, 6}));
    bias = register_parameter("bias", at::linspace(-0.2, 0.3, 11, at::kDouble));
  }
  std::map<std::string, nn::WeightCut> cuts() const override { return {{"table", {}}, {"bias", {}}}; }
  void require_parts(std::int64_t) const override {}
  void use_exchange(std::shared_ptr<const nn::WeightExchange> given) override { exchange = std::move(given); }
  at::Tensor table, bias;
  std::shared_ptr<const nn::WeightExchange> exchange;
};

STOA_PROCESS_TEST(SplitWeights, ShareOutAVocabularyInItsEmbeddingAndItsLoss, 1, 2, 4) {
  const auto world = World::join(read_place());
  const auto ids = at::tensor({0, 10, 3, 7, 3, 9, 5, 2}, at::kLong);
  const auto target = at::tensor({4, -100, 10, 0, 8, 3, -100, 6}, at::kLong);
  for (const double smoothing : {0.0, 0.2}) {
    Vocabulary whole, split;
    const bool biased = smoothing > 0;
    const auto bias = [&](const Vocabulary& vocabulary) { return biased ? vocabulary.bias : at::Tensor(); };
    const SplitWeights weights(split, world->all_shared());
    // the table stands at both ends, as tied weights do
    const auto wanted = ops::linear_cross_entropy_reference(at::embedding(whole.table, ids).sin(),
                                                            whole.table, bias(whole), target, smoothing);
    const auto found =
        nn::split_cross_entropy(nn::split_embedding(split.table, ids, 11, *split.exchange).sin(), split.table,
                                bias(split), target, 11, smoothing, -100, *split.exchange);
    wanted.loss.backward();
    found.loss.backward();
    EXPECT_LT(apart(found.loss.detach(), wanted.loss.detach()), 1e-12);
    EXPECT_LT(apart(found.row_loss, wanted.row_loss.detach()), 1e-12);
    EXPECT_TRUE(at::equal(found.correct, wanted.correct));
    EXPECT_LT(apart(weights.whole({{"table", split.table.grad()}}).at("table"), whole.table.grad()), 1e-12);
    for (const auto& [name, tensor] : weights.whole_on_first(nn::module_state(split)))
      EXPECT_TRUE(at::equal(tensor, nn::module_state(whole).at(name))) << name;
    if (!biased) continue;
    EXPECT_LT(apart(weights.whole({{"bias", split.bias.grad()}}).at("bias"), whole.bias.grad()), 1e-12);
  }
}

STOA_PROCESS_TEST(SplitWeights, RefuseWhatDoesNotDivide, 4) {
  const auto world = World::join(read_place());
  Block block = drawn(0);
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] { SplitWeights(block, world->all_shared()); }),
                       "`parallel.tensor` is 4, which does not divide the 6 heads");
  struct Plain : torch::nn::Module {
  } plain;
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] { SplitWeights(plain, world->all_shared()); }),
                       "no weights that can be split");
}

}  // namespace
}  // namespace stoa::dist
