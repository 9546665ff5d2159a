#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/nn/moe/router.h"
#include "support/thrown.h"

namespace stoa::nn {
namespace {

using Table = std::vector<std::vector<std::int64_t>>;

at::Tensor rows(const std::vector<std::vector<double>>& values) {
  std::vector<at::Tensor> parts;
  for (const auto& row : values) parts.push_back(at::tensor(row, at::kDouble));
  return at::stack(parts).unsqueeze(0);
}

// Logits whose softmax are the given probabilities.
at::Tensor logits_of(const std::vector<std::vector<double>>& probabilities) {
  return rows(probabilities).log();
}

Table table(const at::Tensor& tensor) {
  Table result;
  for (std::int64_t i = 0; i < tensor.size(0); ++i) {
    const auto row = tensor[i].contiguous();
    result.emplace_back(row.data_ptr<std::int64_t>(), row.data_ptr<std::int64_t>() + row.numel());
  }
  return result;
}

// 1 where an assignment was kept.
Table kept(const Routing& routing) {
  return table(routing.slot.ge(0).to(at::kLong));
}

RouterOptions dropless(std::int64_t experts, std::int64_t k) {
  RouterOptions options;
  options.experts = experts;
  options.top_k = k;
  options.noise = 0;
  options.capacity_factor = 0;
  return options;
}

Routing run(const at::Tensor& logits, const RouterOptions& options, bool training = true) {
  return route(logits, {}, options, training);
}

// The balance loss of one call, alpha not included.
double balance(const Routing& routing, const RouterOptions& options) {
  for (const auto& [name, value] : routing_outputs({routing.statistics}, options).statistics)
    if (name == "router.balance") return value.item<double>();
  return NAN;
}

double balance(const at::Tensor& logits, const RouterOptions& options) {
  return balance(run(logits, options), options);
}

void expect_values(const at::Tensor& found, const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(found.numel(), static_cast<std::int64_t>(expected.size()));
  const auto flat = found.detach().flatten();
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(flat[static_cast<std::int64_t>(i)].item<double>(), expected[i], tolerance) << i;
}

// widenet.md, section 7, "Worked routing": every number below was computed by the original code.
class WorkedRouting : public testing::Test {
 protected:
  at::Tensor logits = rows({{2, 1, 0}, {2, 0, 1}, {1, 2, 0}, {0, 1, 2}});

  RouterOptions with_slots(std::int64_t slots, FillOrder fill) const {
    auto options = dropless(3, 2);
    options.capacity_factor = static_cast<double>(slots) * 3 / (4 * 2);
    options.fill = fill;
    return options;
  }
};

TEST_F(WorkedRouting, Probabilities) {
  const auto routing = run(logits, dropless(3, 1));
  expect_values(routing.probabilities.select(0, 0), {0.665241, 0.244728, 0.090031}, 5e-7);
  expect_values(routing.probabilities.select(0, 3), {0.090031, 0.244728, 0.665241}, 5e-7);
}

TEST_F(WorkedRouting, TopOneStatistics) {
  const auto routing = run(logits, dropless(3, 1));
  expect_values(routing.statistics.fraction, {.5, .25, .25}, 0);
  expect_values(routing.statistics.probability, {.416310, .311182, .272508}, 5e-7);
  EXPECT_NEAR(balance(routing, dropless(3, 1)), 1.0622327, 5e-8);
}

TEST_F(WorkedRouting, TopTwoStatistics) {
  const auto routing = run(logits, dropless(3, 2));
  expect_values(routing.statistics.fraction, {.375, .375, .25}, 0);
  EXPECT_NEAR(balance(routing, dropless(3, 2)), 1.0228096, 5e-8);
}

TEST_F(WorkedRouting, BalanceGradientOfTheFirstRow) {
  auto options = dropless(3, 1);
  options.balance_weight = 1;
  const auto s = logits.clone().requires_grad_(true);
  const auto loss = routing_outputs({run(s, options).statistics}, options).losses.at(0).value;
  const auto gradient = torch::autograd::grad({loss}, {s})[0];
  expect_values(gradient[0][0], {.041755, -.030526, -.011230}, 5e-7);
}

TEST_F(WorkedRouting, TwoSlotsByTokenAndByChoice) {
  for (const auto fill : {FillOrder::kToken, FillOrder::kChoice})
    EXPECT_EQ(kept(run(logits, with_slots(2, fill))), (Table{{1, 1}, {1, 1}, {1, 0}, {1, 0}}));
}

TEST_F(WorkedRouting, ReservedFirstSlotByToken) {
  auto options = with_slots(2, FillOrder::kToken);
  options.reserve_first_slot = true;
  EXPECT_EQ(kept(run(logits, options)), (Table{{1, 1}, {0, 1}, {0, 0}, {0, 0}}));
}

TEST_F(WorkedRouting, ReservedFirstSlotByChoice) {
  auto options = with_slots(2, FillOrder::kChoice);
  options.reserve_first_slot = true;
  EXPECT_EQ(kept(run(logits, options)), (Table{{1, 0}, {0, 0}, {1, 0}, {1, 0}}));
}

// Balance loss

TEST(RouterBalance, CanBeBelowOne) {
  // m = (.75, .25), p = (.3825, .6175)
  const auto logits = logits_of({{.51, .49}, {.51, .49}, {.51, .49}, {1e-300, 1}});
  EXPECT_NEAR(balance(logits, dropless(2, 1)), .8825, 1e-12);
}

TEST(RouterBalance, AllTokensOnOneOfFourExpertsIsFour) {
  EXPECT_NEAR(balance(rows({{0, 0, 900, 0}, {0, 0, 900, 0}}), dropless(4, 1)), 4, 1e-12);
}

TEST(RouterBalance, UniformProbabilitiesAreOneForAnyLoad) {
  EXPECT_NEAR(balance(at::zeros({2, 3, 4}, at::kDouble), dropless(4, 2)), 1, 1e-12);
}

TEST(RouterBalance, CountsBeforeDropping) {
  at::manual_seed(1);
  const auto logits = at::randn({1, 60, 4}, at::kDouble);
  auto options = dropless(4, 2);
  const double expected = balance(logits, options);
  options.capacity_factor = 0.3;
  EXPECT_DOUBLE_EQ(balance(logits, options), expected);
}

TEST(RouterBalance, GradientIsTheFormula) {
  // d l_bal / d s[n, j] = (E / N) P[n, j] (m_j - sum_i m_i P[n, i])
  at::manual_seed(2);
  auto options = dropless(5, 2);
  options.balance_weight = 0.25;
  const auto s = at::randn({3, 4, 5}, at::kDouble).requires_grad_(true);
  const auto routing = run(s, options);
  const auto loss = routing_outputs({routing.statistics}, options).losses.at(0).value;
  const auto p = routing.probabilities.detach();
  const auto m = routing.statistics.fraction[0];
  const auto expected = 0.25 * 5 / 12 * p * (m - p.matmul(m).unsqueeze(1));
  EXPECT_TRUE(at::allclose(torch::autograd::grad({loss}, {s})[0].view({12, 5}), expected, 1e-12, 1e-14));
}

// Capacity

TEST(RouterCapacity, OfThirtyTwoImagesIs3782) {
  RouterOptions options;
  EXPECT_EQ(expert_capacity(32 * 197, 1.2, options), 3782);
}

TEST(RouterCapacity, IsTheDecimalProductRoundedDown) {
  auto options = dropless(1, 1);
  EXPECT_EQ(expert_capacity(100, 0.29, options), 29);  // 0.29 * 100 is 28.999999999999996 in binary
  EXPECT_EQ(expert_capacity(100, 0.299, options), 29);
}

TEST(RouterCapacity, OfVMoeIsRoundedUpToAMultipleOfFour) {
  auto options = dropless(8, 2);
  options.capacity_rounding = CapacityRounding::kCeilTo4;
  EXPECT_EQ(expert_capacity(8 * 197, 1.05, options), 416);  // 413.7
  EXPECT_EQ(expert_capacity(16, 1, options), 4);            // exactly 4
  EXPECT_EQ(expert_capacity(100, 0.01, options), 4);        // never 0
}

TEST(RouterCapacity, OfZeroIsRefused) {
  const auto message = stoa::test::thrown<ConfigError>([] {
    run(at::zeros({1, 6, 4}, at::kDouble), [] {
      auto options = dropless(4, 1);
      options.capacity_factor = 0.6;
      return options;
    }());
  });
  STOA_EXPECT_CONTAINS(message, "the capacity factor 0.6 (the router's `capacity_factor`");
}

TEST(RouterCapacity, OfOneIsRefusedWhereTheFirstSlotIsReserved) {
  auto options = dropless(4, 1);
  EXPECT_EQ(expert_capacity(4, 1, options), 1);
  options.reserve_first_slot = true;
  stoa::test::thrown<ConfigError>([&] { expert_capacity(4, 1, options); });
}

TEST(RouterCapacity, BoundsEveryExpert) {
  at::manual_seed(3);
  const auto logits = at::randn({1, 200, 4}, at::kDouble) + at::tensor({2.0, 1.0, 0.0, -1.0}, at::kDouble);
  auto options = dropless(4, 2);
  options.capacity_factor = 0.9;
  for (const auto fill : {FillOrder::kToken, FillOrder::kChoice, FillOrder::kPriority}) {
    options.fill = fill;
    const auto routing = run(logits, options);
    EXPECT_LE(routing.statistics.kept.max().item<std::int64_t>(), expert_capacity(200, 0.9, options));
    EXPECT_EQ(routing.statistics.kept.sum().item<std::int64_t>(), routing.assignments.token.size(0));
    EXPECT_NEAR(routing.statistics.drop_rate.item<double>(),
                1 - static_cast<double>(routing.assignments.token.size(0)) / 400, 1e-12);
  }
}

TEST(RouterCapacity, OfAllTokensDropsNothing) {
  const auto logits = rows({{2, 1, 0}, {2, 1, 0}, {2, 1, 0}, {2, 1, 0}});
  auto options = dropless(3, 2);
  options.capacity_factor = 1.5;  // E / K
  EXPECT_EQ(run(logits, options).statistics.drop_rate.item<double>(), 0);
}

TEST(RouterCapacity, EvaluationDropsNothingByDefault) {
  const auto logits = rows({{2, 1, 0}, {2, 1, 0}, {2, 1, 0}, {2, 1, 0}});
  RouterOptions options;
  options.experts = 3;
  EXPECT_GT(run(logits, options, /*training=*/true).statistics.drop_rate.item<double>(), 0);
  EXPECT_EQ(run(logits, options, /*training=*/false).statistics.drop_rate.item<double>(), 0);
  options.eval_capacity_factor = 0.8;
  EXPECT_GT(run(logits, options, /*training=*/false).statistics.drop_rate.item<double>(), 0);
}

TEST(RouterCapacity, InEvaluationMayBeThatOfTraining) {
  const auto logits = rows({{2, 1, 0}, {2, 1, 0}, {2, 1, 0}, {2, 1, 0}});
  RouterOptions options;
  options.experts = 3;
  options.eval_capacity_factor = -1;
  for (const double factor : {0.8, 1.2, 1.5, 0.0}) {  // the last two drop nothing
    options.capacity_factor = factor;
    EXPECT_EQ(run(logits, options, /*training=*/false).statistics.drop_rate.item<double>(),
              run(logits, options, /*training=*/true).statistics.drop_rate.item<double>());
  }
}

// Orders of filling, two slots an expert: first choices are experts 0, 0, 1 with .6, .9, .7
class FillOrders : public testing::Test {
 protected:
  Table slots(FillOrder fill) const {
    auto options = dropless(2, 2);
    options.capacity_factor = 0.7;  // floor(2.1) slots
    options.fill = fill;
    return table(run(logits_of({{.6, .4}, {.9, .1}, {.3, .7}}), options).slot);
  }
};

TEST_F(FillOrders, ByToken) {
  EXPECT_EQ(slots(FillOrder::kToken), (Table{{0, 0}, {1, 1}, {-1, -1}}));
}

TEST_F(FillOrders, ByChoice) {
  EXPECT_EQ(slots(FillOrder::kChoice), (Table{{0, 1}, {1, -1}, {0, -1}}));
}

TEST_F(FillOrders, ByPriority) {
  EXPECT_EQ(slots(FillOrder::kPriority), (Table{{1, -1}, {0, 1}, {0, -1}}));
}

TEST(Router, AssignmentsAreTheKeptOnesInOrderOfTokens) {
  auto options = dropless(2, 2);
  options.capacity_factor = 0.7;
  const auto routing = run(logits_of({{.6, .4}, {.9, .1}, {.3, .7}}), options);
  EXPECT_EQ(table(routing.assignments.token.unsqueeze(0)), (Table{{0, 0, 1, 2}}));
  EXPECT_EQ(table(routing.assignments.expert.unsqueeze(0)), (Table{{0, 1, 0, 1}}));
  expect_values(routing.assignments.gate, {.6, .4, .9, .7}, 1e-12);
  EXPECT_EQ(table(routing.statistics.kept.unsqueeze(0)), (Table{{2, 2}}));
}

// Choice of experts and gates

TEST(Router, TiesGoToTheLowestExpert) {
  for (const auto& row : table(run(at::zeros({2, 50, 8}), dropless(8, 3)).index))
    EXPECT_EQ(row, (std::vector<std::int64_t>{0, 1, 2}));
}

TEST(Router, GatesAreProbabilitiesUnlessRenormalised) {
  const auto logits = logits_of({{.5, .2, .3}, {.1, .8, .1}});
  auto options = dropless(3, 2);
  expect_values(run(logits, options).assignments.gate, {.5, .3, .8, .1}, 1e-12);
  options.renormalise_gates = true;
  expect_values(run(logits, options).assignments.gate, {.625, .375, .8 / .9, .1 / .9}, 1e-12);
}

TEST(Router, AConstantAddedToATokensLogitsChangesNothing) {
  at::manual_seed(5);
  const auto logits = at::randn({2, 9, 4}, at::kDouble);
  const auto moved = logits + 50 * at::randn({2, 9, 1}, at::kDouble);
  const auto a = run(logits, dropless(4, 2));
  const auto b = run(moved, dropless(4, 2));
  EXPECT_TRUE(at::equal(a.index, b.index));
  EXPECT_TRUE(at::allclose(a.assignments.gate, b.assignments.gate, 1e-11, 1e-13));
}

TEST(Router, PermutingTokensPermutesRoutes) {
  at::manual_seed(6);
  const auto logits = at::randn({1, 20, 4}, at::kDouble);
  const auto order = at::randperm(20, at::kLong);
  const auto a = run(logits, dropless(4, 2));
  const auto b = run(logits.index_select(1, order), dropless(4, 2));
  EXPECT_TRUE(at::equal(a.index.index_select(0, order), b.index));
  EXPECT_NEAR(balance(a, dropless(4, 2)), balance(b, dropless(4, 2)), 1e-13);
}

TEST(Router, PermutingExpertsRenamesRoutes) {
  at::manual_seed(7);
  const auto logits = at::randn({1, 20, 4}, at::kDouble);
  const auto order = at::tensor({2, 0, 3, 1}, at::kLong);
  const auto a = run(logits, dropless(4, 2));
  const auto b = run(logits.index_select(2, order), dropless(4, 2));
  EXPECT_TRUE(at::equal(a.index.flatten(), order.index_select(0, b.index.flatten())));
  EXPECT_NEAR(balance(a, dropless(4, 2)), balance(b, dropless(4, 2)), 1e-13);
}

TEST(Router, EvaluationDoesNotDependOnTheBatch) {
  at::manual_seed(8);
  const auto logits = at::randn({4, 6, 5});
  RouterOptions options;
  options.experts = 5;
  const auto whole = run(logits, options, false);
  for (std::int64_t i = 0; i < 4; ++i) {
    const auto part = run(logits.narrow(0, i, 1), options, false);
    EXPECT_TRUE(at::equal(part.index, whole.index.narrow(0, 6 * i, 6)));
    EXPECT_TRUE(at::equal(part.assignments.gate, whole.assignments.gate.narrow(0, 12 * i, 12)));
  }
}

TEST(Router, NonFiniteLogitsAreRefused) {
  for (const double bad : {std::nan(""), static_cast<double>(INFINITY)}) {
    auto logits = at::zeros({1, 5, 4});
    logits[0][3][2] = bad;
    STOA_EXPECT_CONTAINS(stoa::test::thrown<Error>([&] { run(logits, dropless(4, 2)); }),
                         "gates are not finite");
  }
}

TEST(Router, MoreChoicesThanExpertsAreRefused) {
  stoa::test::thrown<ConfigError>([] { run(at::zeros({1, 5, 4}), dropless(4, 5)); });
}

TEST(Router, EntropyOfUniformProbabilitiesIsLogE) {
  EXPECT_NEAR(run(at::zeros({1, 5, 4}, at::kDouble), dropless(4, 2)).statistics.entropy.item<double>(),
              std::log(4), 1e-12);
}

TEST(Router, ZIsTheMeanSquaredLogsumexp) {
  const auto logits = rows({{0, 0}, {1, 1}});
  const double expected = (std::pow(std::log(2), 2) + std::pow(1 + std::log(2), 2)) / 2;
  EXPECT_NEAR(run(logits, dropless(2, 1)).statistics.z.item<double>(), expected, 1e-12);
}

// The module: noise and its absence

TEST(RouterModule, TrainingNoiseHasDeviationOneOverE) {
  at::manual_seed(9);
  RouterOptions options;  // E = 4, noise 1
  options.capacity_factor = 0;
  Router router(8, options);
  const auto routing = router->forward(at::zeros({4, 10000, 8}));
  // log P is the noise minus a constant per token; taking its mean away leaves (1 - 1/E) of the variance
  const auto log_p = routing.probabilities.detach().log();
  const auto centred = log_p - log_p.mean(1, true);
  const double deviation = std::sqrt(centred.square().mean().item<double>() * 4 / 3);
  EXPECT_NEAR(deviation, 0.25, 0.003);
}

TEST(RouterModule, TrainingNoiseIsFreshEachCall) {
  Router router(8, RouterOptions{});
  const auto x = at::randn({1, 10, 8});
  EXPECT_FALSE(at::equal(router->forward(x).probabilities, router->forward(x).probabilities));
}

TEST(RouterModule, EvaluationIsBitEqualTwice) {
  Router router(8, RouterOptions{});
  router->eval();
  const auto x = at::randn({2, 10, 8});
  EXPECT_TRUE(at::equal(router->forward(x).probabilities, router->forward(x).probabilities));
}

TEST(RouterModule, NoiseZeroTrainsWithoutNoise) {
  auto options = dropless(4, 2);
  Router router(8, options);
  const auto x = at::randn({2, 10, 8});
  EXPECT_TRUE(at::equal(router->forward(x).probabilities, router->forward(x).probabilities));
}

TEST(RouterModule, WeightIsGlorotUniform) {
  at::manual_seed(10);
  Router router(500, RouterOptions{});
  const double bound = std::sqrt(6.0 / 504);
  const auto largest = router->weight.abs().max().item<double>();
  EXPECT_LE(largest, bound);
  EXPECT_GT(largest, 0.99 * bound);
}

TEST(RouterModule, GatesStartAsMeasuredInTheOriginalCode) {
  // sum of a token's gates with layer-normed inputs and without noise: 0.835, 0.599 and 0.509
  const auto mean_gate_sum = [](std::int64_t experts, std::int64_t k) {
    at::manual_seed(11);
    Router router(512, dropless(experts, k));
    const auto x = at::layer_norm(at::randn({4, 2000, 512}), {512});
    return router->forward(x).assignments.gate.sum().item<double>() / 8000;
  };
  EXPECT_NEAR(mean_gate_sum(4, 2), 0.835, 0.02);
  EXPECT_NEAR(mean_gate_sum(4, 1), 0.599, 0.02);
  EXPECT_NEAR(mean_gate_sum(16, 2), 0.509, 0.02);
}

}  // namespace
}  // namespace stoa::nn
