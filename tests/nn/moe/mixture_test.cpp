#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/nn/moe/mixture.h"
#include "stoa/ops/dropout.h"
#include "support/thrown.h"

namespace stoa::nn {
namespace {

MixtureOptions options_of(std::int64_t experts, std::int64_t k) {
  MixtureOptions options;
  options.dim = 6;
  options.hidden = 10;
  options.router.experts = experts;
  options.router.top_k = k;
  options.router.noise = 0;
  options.router.capacity_factor = 0;
  return options;
}

Mixture make(const MixtureOptions& options, std::uint64_t seed = 1) {
  at::manual_seed(seed);
  Mixture mixture(options);
  mixture->to(at::kDouble);
  const at::NoGradGuard no_grad;
  mixture->b_in.normal_();  // so that every bias matters
  mixture->b_out.normal_();
  return mixture;
}

at::Tensor input(std::int64_t samples = 3, std::int64_t tokens = 4) {
  at::manual_seed(2);
  return at::randn({samples, tokens, 6}, at::kDouble);
}

// One expert's perceptron, written out.
at::Tensor perceptron(const Mixture& mixture, std::int64_t expert, const at::Tensor& x) {
  const auto hidden = at::gelu(at::matmul(x, mixture->w_in[expert]) + mixture->b_in[expert], "tanh");
  return at::matmul(hidden, mixture->w_out[expert]) + mixture->b_out[expert];
}

void expect_close(const at::Tensor& found, const at::Tensor& expected) {
  ASSERT_EQ(found.sizes(), expected.sizes());
  EXPECT_LE((found - expected).abs().max().item<double>(), 1e-12);
}

TEST(MixtureLayer, OfOneExpertIsADensePerceptron) {
  auto mixture = make(options_of(1, 1));
  const auto x = input();
  expect_close(mixture->forward(x).output, perceptron(mixture, 0, x));
}

TEST(MixtureLayer, OfOneExpertHasBalanceOneAndNoRouterGradient) {
  auto options = options_of(1, 1);
  options.router.balance_weight = 1;
  auto mixture = make(options);
  const auto result = mixture->forward(input());
  const auto balance = routing_outputs({result.statistics}, options.router).losses.at(0).value;
  EXPECT_DOUBLE_EQ(balance.item<double>(), 1);
  (result.output.square().sum() + balance).backward();
  EXPECT_TRUE(mixture->router->weight.grad().eq(0).all().item<bool>());
  EXPECT_TRUE(mixture->w_in.grad().ne(0).any().item<bool>());
}

TEST(MixtureLayer, OfAllExpertsIsTheSoftMixture) {
  auto mixture = make(options_of(3, 3));
  const auto x = input();
  const auto p = at::softmax(at::matmul(x, mixture->router->weight), -1);
  auto expected = at::zeros_like(x);
  for (std::int64_t e = 0; e < 3; ++e)
    expected = expected + p.select(-1, e).unsqueeze(-1) * perceptron(mixture, e, x);
  expect_close(mixture->forward(x).output, expected);
}

TEST(MixtureLayer, OfEqualExpertsIsTheGateSumTimesThePerceptron) {
  auto mixture = make(options_of(4, 2));
  {
    const at::NoGradGuard no_grad;
    for (const auto& stack : {mixture->w_in, mixture->b_in, mixture->w_out, mixture->b_out})
      stack.copy_(stack[0].clone().expand_as(stack));
  }
  const auto x = input();
  const auto p = at::softmax(at::matmul(x, mixture->router->weight), -1);
  const auto gates = std::get<0>(p.topk(2, -1)).sum(-1, true);
  expect_close(mixture->forward(x).output, gates * perceptron(mixture, 0, x));
}

TEST(MixtureLayer, PermutingTokensPermutesOutputs) {
  auto mixture = make(options_of(4, 2));
  const auto x = input(1, 12);
  const auto order = at::randperm(12, at::kLong);
  expect_close(mixture->forward(x.index_select(1, order)).output,
               mixture->forward(x).output.index_select(1, order));
}

TEST(MixtureLayer, PermutingExpertsWithTheirRouterColumnsChangesNothing) {
  auto mixture = make(options_of(4, 2));
  const auto x = input();
  const auto expected = mixture->forward(x).output.detach();
  const auto order = at::tensor({2, 0, 3, 1}, at::kLong);
  const at::NoGradGuard no_grad;
  mixture->router->weight.copy_(mixture->router->weight.index_select(1, order));
  for (const auto& stack : {mixture->w_in, mixture->b_in, mixture->w_out, mixture->b_out})
    stack.copy_(stack.index_select(0, order));
  expect_close(mixture->forward(x).output, expected);
}

TEST(MixtureLayer, EvaluationDoesNotDependOnTheBatch) {
  auto options = options_of(4, 2);
  options.router.capacity_factor = 1.2;
  options.router.noise = 1;
  auto mixture = make(options);
  mixture->eval();
  const auto x = input(5, 4);
  const auto whole = mixture->forward(x).output;
  for (std::int64_t i = 0; i < 5; ++i)
    expect_close(mixture->forward(x.narrow(0, i, 1)).output, whole.narrow(0, i, 1));
}

TEST(MixtureLayer, DrawsNoiseAndDropoutByATokensPlaceInTheBatch) {
  auto options = options_of(4, 2);
  options.router.noise = 1;
  options.dropout = 0.4;
  auto mixture = make(options);
  const auto x = input(5, 4);
  const auto part = [&](std::int64_t begin, std::int64_t end, std::uint64_t seed) {
    const ops::BatchPartScope scope({begin, seed});
    return mixture->forward(x.slice(0, begin, end)).output.detach();
  };
  const auto whole = part(0, 5, 9);
  expect_close(at::cat({part(0, 2, 9), part(2, 5, 9)}), whole);
  EXPECT_FALSE(part(0, 5, 10).allclose(whole));
  // packed sequences name their tokens themselves
  const ops::BatchPartScope scope({0, 9});
  const auto order = at::tensor({3, 0, 2}, at::kLong);
  const auto packed = x[0].index_select(0, order).unsqueeze(0);
  expect_close(mixture->forward(packed, order).output[0], whole[0].index_select(0, order));
}

TEST(MixtureLayer, TokenWithAllChoicesDroppedGetsZero) {
  auto options = options_of(4, 2);
  options.router.capacity_factor = 0.5;
  auto mixture = make(options);
  const auto result = mixture->forward(input(1, 16));
  const auto lost = result.routing.slot.lt(0).all(1).nonzero().squeeze(1);
  ASSERT_GT(lost.numel(), 0);
  EXPECT_TRUE(result.output[0].index_select(0, lost).eq(0).all().item<bool>());
}

TEST(MixtureLayer, BackendsAgree) {
  auto options = options_of(4, 2);
  options.router.capacity_factor = 0.8;
  const auto x = input();
  const auto expected = make(options)->forward(x).output;
  for (const auto backend : {ops::MixtureBackend::kNaive, ops::MixtureBackend::kPadded}) {
    options.backend = backend;
    expect_close(make(options)->forward(x).output, expected);
  }
}

TEST(MixtureLayer, OutputActivationIsAppliedBeforeTheGate) {
  auto options = options_of(1, 1);
  options.output_activation = ops::Activation::kGeluTanh;
  auto mixture = make(options);
  const auto x = input();
  expect_close(mixture->forward(x).output, at::gelu(perceptron(mixture, 0, x), "tanh"));
}

TEST(MixtureLayer, DropoutActsInTrainingAlone) {
  auto options = options_of(4, 2);
  options.dropout = 0.5;
  auto mixture = make(options);
  const auto x = input();
  EXPECT_FALSE(at::equal(mixture->forward(x).output, mixture->forward(x).output));
  mixture->eval();
  const auto evaluated = mixture->forward(x).output;
  options.dropout = 0;
  expect_close(evaluated, make(options)->forward(x).output);
}

TEST(MixtureLayer, DropoutKeepsTheMean) {
  // relu units that are all on make the expert linear in the mask
  auto options = options_of(1, 1);
  options.dropout = 0.25;
  options.activation = ops::Activation::kNone;
  auto mixture = make(options);
  const auto x = input(1, 1).expand({40, 500, 6});
  const auto mean = mixture->forward(x).output.mean(at::IntArrayRef{0, 1}).detach();
  mixture->eval();
  const auto exact = mixture->forward(x).output[0][0].detach();
  EXPECT_LT((mean - exact).abs().max().item<double>(), 0.05 * exact.abs().max().item<double>());
}

TEST(MixtureLayer, ExpertsStartGlorotUniformEachOnItsOwn) {
  MixtureOptions options;
  options.dim = 40;
  options.hidden = 60;
  at::manual_seed(3);
  Mixture mixture(options);
  const double bound = std::sqrt(6.0 / 100);
  for (const auto& weight : {mixture->w_in, mixture->w_out})
    for (std::int64_t e = 0; e < 4; ++e) {
      EXPECT_LE(weight[e].abs().max().item<double>(), bound);
      EXPECT_NEAR(weight[e].std().item<double>(), bound / std::sqrt(3), 0.03 * bound);
    }
  EXPECT_FALSE(at::equal(mixture->w_in[0], mixture->w_in[1]));
  for (const auto& bias : {mixture->b_in, mixture->b_out}) EXPECT_NEAR(bias.std().item<double>(), 1e-6, 2e-7);
}

TEST(MixtureLayer, NamesItsStackedParameters) {
  Mixture mixture(options_of(3, 2));
  const std::map<std::string, std::int64_t> expected{{"w_in", 3}, {"b_in", 3}, {"w_out", 3}, {"b_out", 3}};
  EXPECT_EQ(mixture->slices(), expected);
  for (const auto& [name, count] : expected) EXPECT_EQ(mixture->named_parameters()[name].size(0), count);
}

TEST(MixtureLayer, AutocastLeavesTheRouterInFloat) {
  at::manual_seed(4);
  Mixture mixture(options_of(4, 2));
  const auto x = at::randn({2, 5, 6});
  const auto exact = mixture->forward(x);
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  const auto lower = mixture->forward(x);
  at::autocast::set_autocast_enabled(at::kCPU, false);
  at::autocast::clear_cache();
  EXPECT_TRUE(at::equal(lower.routing.probabilities, exact.routing.probabilities));
  EXPECT_FALSE(lower.output.equal(exact.output));
  EXPECT_LE((lower.output - exact.output).abs().max().item<double>(), 0.03);
}

TEST(MixtureLayer, BadSizesAreRefused) {
  auto options = options_of(4, 2);
  options.hidden = 0;
  stoa::test::thrown<ConfigError>([&] { Mixture mixture(options); });
  options = options_of(4, 2);
  options.dropout = 1;
  STOA_EXPECT_CONTAINS(stoa::test::thrown<ConfigError>([&] { Mixture mixture(options); }), "dropout is 1");
  options = options_of(4, 5);
  STOA_EXPECT_CONTAINS(stoa::test::thrown<ConfigError>([&] { Mixture mixture(options); }), "`router.top_k`");
  STOA_EXPECT_CONTAINS(stoa::test::thrown<ShapeError>([&] {
                         make(options_of(4, 2))->forward(at::zeros({2, 3, 7}, at::kDouble));
                       }),
                       "router input");
}

}  // namespace
}  // namespace stoa::nn
