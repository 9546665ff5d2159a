// Routing groups, expert choice, the CPU loops against their reference, and the losses over several calls.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <cmath>
#include <functional>

#include "stoa/base/errors.h"
#include "stoa/nn/moe/selection.h"
#include "support/thrown.h"

namespace stoa::nn {
namespace {

RouterOptions noiseless(std::int64_t experts, std::int64_t k, double factor) {
  RouterOptions options;
  options.experts = experts;
  options.top_k = k;
  options.noise = 0;
  options.capacity_factor = factor;
  return options;
}

std::vector<std::int64_t> numbers(const at::Tensor& tensor) {
  const auto flat = tensor.contiguous();
  return {flat.data_ptr<std::int64_t>(), flat.data_ptr<std::int64_t>() + flat.numel()};
}

const at::Tensor& find(const std::vector<NamedTensor>& tensors, const std::string& name) {
  for (const auto& tensor : tensors)
    if (tensor.name == name) return tensor.value;
  throw Error("no tensor " + name);
}

// Groups

class RoutingGroupsOfTwo : public testing::Test {
 protected:
  // five samples of three tokens in groups of two samples, the last one alone
  void SetUp() override {
    at::manual_seed(1);
    logits = at::randn({5, 3, 4}, at::kDouble);
    options = noiseless(4, 2, 0.8);
    options.group_size = 2;
    whole = route(logits, {}, options, true);
    options.group_size = 0;
    for (const std::int64_t begin : {0, 2, 4})
      parts.push_back(route(logits.slice(0, begin, begin + 2), {}, options, true));
  }
  at::Tensor joined(const std::function<at::Tensor(const Routing&)>& member) const {
    std::vector<at::Tensor> values;
    for (const auto& part : parts) values.push_back(member(part));
    return at::cat(values);
  }
  at::Tensor logits;
  RouterOptions options;
  Routing whole;
  std::vector<Routing> parts;
};

TEST_F(RoutingGroupsOfTwo, AreFilledEachOnItsOwn) {
  EXPECT_TRUE(at::equal(whole.slot, joined([](const Routing& r) { return r.slot; })));
}

TEST_F(RoutingGroupsOfTwo, HaveStatisticsOfTheirOwn) {
  EXPECT_TRUE(at::allclose(whole.statistics.fraction,
                           joined([](const Routing& r) { return r.statistics.fraction; })));
  EXPECT_TRUE(at::allclose(whole.statistics.probability,
                           joined([](const Routing& r) { return r.statistics.probability; })));
}

TEST_F(RoutingGroupsOfTwo, BalanceLossIsTheirMean) {
  double expected = 0;
  for (const auto& part : parts)
    expected += find(routing_outputs({part.statistics}, options).losses, "balance").item<double>() / 3;
  EXPECT_NEAR(find(routing_outputs({whole.statistics}, options).losses, "balance").item<double>(), expected,
              1e-14);
}

TEST(RoutingGroups, LargerThanTheBatchAreTheBatch) {
  const auto logits = at::randn({3, 2, 4});
  auto options = noiseless(4, 2, 1);
  options.group_size = 50;
  EXPECT_EQ(route(logits, {}, options, true).statistics.fraction.size(0), 1);
}

// CPU loops against sorts

TEST(Selection, TopExpertsEqualTheStableSort) {
  at::manual_seed(2);
  const auto p = at::randint(4, {300, 6}, at::kDouble);  // many ties
  for (const std::int64_t k : {1, 2, 6})
    EXPECT_TRUE(at::equal(top_experts(p, k), selection_reference::top_experts(p, k)));
}

TEST(Selection, SlotsEqualTheSortedForm) {
  at::manual_seed(3);
  const auto p = at::randint(5, {50, 6}, at::kDouble);
  const auto index = top_experts(p, 3);
  const auto first = p.gather(1, index).select(1, 0);
  for (const auto& groups : {RoutingGroups{50, 16}, RoutingGroups{50, 16, 7}})
    for (const auto fill : {FillOrder::kToken, FillOrder::kChoice, FillOrder::kPriority})
      for (const auto& capacity : std::vector<std::vector<std::int64_t>>{{}, {4, 9, 5, 1}})
        EXPECT_TRUE(at::equal(fill_slots(index, first, groups, 6, fill, capacity),
                              selection_reference::fill_slots(index, first, groups, 6, fill, capacity)));
}

TEST(Selection, FirstGroupMayBeginElsewhere) {
  const RoutingGroups groups{5, 4, 3};  // one token of the first, and the second
  EXPECT_EQ(groups.count(), 2);
  EXPECT_EQ(groups.begin(0), 0);
  EXPECT_EQ(groups.end(0), 1);
  EXPECT_EQ(groups.begin(1), 1);
  EXPECT_EQ(groups.end(1), 5);
  const auto index = at::zeros({5, 1}, at::kLong);
  const auto slots = fill_slots(index, at::zeros({5}), groups, 2, FillOrder::kChoice, {1, 3});
  EXPECT_EQ(numbers(slots), (std::vector<std::int64_t>{0, 0, 1, 2, -1}));
}

// Expert choice

class ExpertChoice : public testing::Test {
 protected:
  void SetUp() override {
    options = noiseless(2, 1, 1);  // two experts take floor(4 * 1 * 1 / 2) = 2 of four tokens
    options.routing = RoutingKind::kExpertChoice;
  }
  // expert 0 likes tokens 1 and 3 most; expert 1 tokens 0 and 2
  at::Tensor logits = at::tensor({.4, .6, .9, .1, .3, .7, .5, .5}, at::kDouble).log().view({2, 2, 2});
  RouterOptions options;
};

TEST_F(ExpertChoice, EveryExpertTakesItsSurestTokens) {
  const auto routing = route(logits, {}, options, true);
  EXPECT_EQ(numbers(routing.assignments.token), (std::vector<std::int64_t>{1, 3, 2, 0}));
  EXPECT_EQ(numbers(routing.assignments.expert), (std::vector<std::int64_t>{0, 0, 1, 1}));
  EXPECT_TRUE(at::allclose(routing.assignments.gate, at::tensor({.9, .5, .7, .6}, at::kDouble)));
}

TEST_F(ExpertChoice, EvaluationTakesTheTrainingFactorByDefault) {
  EXPECT_EQ(route(logits, {}, options, false).assignments.token.size(0), 4);
  options.eval_capacity_factor = 0.5;
  EXPECT_EQ(route(logits, {}, options, false).assignments.token.size(0), 2);
}

TEST_F(ExpertChoice, DropRateIsTheShareOfTokensNobodyTook) {
  options.capacity_factor = 0.5;  // tokens 1 and 2
  EXPECT_EQ(route(logits, {}, options, true).statistics.drop_rate.item<double>(), 0.5);
}

TEST_F(ExpertChoice, ChoosesWithinGroups) {
  options.group_size = 1;  // tokens 0 and 1, then 2 and 3; one a group and expert
  const auto routing = route(logits, {}, options, true);
  EXPECT_EQ(numbers(routing.assignments.token), (std::vector<std::int64_t>{1, 0, 3, 2}));
}

TEST_F(ExpertChoice, RenormalisedGatesOfATokenSumToOne) {
  options.top_k = 2;  // both experts take all tokens
  options.renormalise_gates = true;
  const auto& assignments = route(logits * 3, {}, options, true).assignments;
  const auto sums = at::zeros({4}, at::kDouble).index_add(0, assignments.token, assignments.gate);
  EXPECT_TRUE(at::allclose(sums, at::ones({4}, at::kDouble)));
}

TEST_F(ExpertChoice, HasNoBalanceLoss) {
  options.balance_weight = 1;
  EXPECT_TRUE(routing_outputs({route(logits, {}, options, true).statistics}, options).losses.empty());
}

// Losses over calls

RoutingStatistics statistics(std::vector<double> m, std::vector<double> p, double z = 0) {
  RoutingStatistics result;
  result.fraction = at::tensor(m, at::kDouble).unsqueeze(0);
  result.probability = at::tensor(p, at::kDouble).unsqueeze(0);
  result.z = at::scalar_tensor(z, at::kDouble);
  result.drop_rate = at::scalar_tensor(0.25, at::kDouble);
  result.entropy = at::scalar_tensor(0.5, at::kDouble);
  return result;
}

class RoutingLosses : public testing::Test {
 protected:
  double loss(const std::string& name) const {
    return find(routing_outputs(calls, options).losses, name).item<double>();
  }
  RouterOptions options = noiseless(2, 1, 0);
  std::vector<RoutingStatistics> calls{statistics({1, 0}, {1, 0}, 2), statistics({.5, .5}, {.25, .75}, 4)};
};

TEST_F(RoutingLosses, AreSummedOverCalls) {
  options.balance_weight = .01;
  EXPECT_NEAR(loss("balance"), .01 * (2 + 1), 1e-14);
}

TEST_F(RoutingLosses, OrAveraged) {
  options.balance_weight = .01;
  options.balance_reduce = BalanceReduce::kMean;
  EXPECT_NEAR(loss("balance"), .01 * 1.5, 1e-14);
}

TEST_F(RoutingLosses, PooledOverDepthAllowAnExpertADepth) {
  calls = {statistics({1, 0}, {1, 0}), statistics({0, 1}, {0, 1})};
  options.balance_weight = 1;
  EXPECT_NEAR(loss("balance"), 4, 1e-14);
  options.balance_scope = BalanceScope::kDepth;
  EXPECT_NEAR(loss("balance"), 2,
              1e-14);  // pooled m = p = (.5, .5) gives 1, and the sum over calls keeps alpha's meaning
  options.balance_reduce = BalanceReduce::kMean;
  EXPECT_NEAR(loss("balance"), 1, 1e-14);
}

TEST_F(RoutingLosses, ZIsReducedAlike) {
  options.z_weight = .1;
  EXPECT_NEAR(loss("router_z"), .6, 1e-14);
  options.balance_reduce = BalanceReduce::kMean;
  EXPECT_NEAR(loss("router_z"), .3, 1e-14);
}

TEST_F(RoutingLosses, WithoutWeightAreNotThere) {
  options.balance_weight = 0;
  EXPECT_TRUE(routing_outputs(calls, options).losses.empty());
}

TEST_F(RoutingLosses, StatisticsAreByDepthAndDetached) {
  calls[0].probability.requires_grad_(true);
  const auto outputs = routing_outputs(calls, options);
  EXPECT_TRUE(outputs.losses.at(0).value.requires_grad());
  for (const auto& [name, value] : outputs.statistics) EXPECT_FALSE(value.requires_grad()) << name;
  EXPECT_TRUE(at::equal(find(outputs.statistics, "router.load"),
                        at::tensor({1., 0., .5, .5}, at::kDouble).view({2, 2})));
  EXPECT_TRUE(at::equal(find(outputs.statistics, "router.balance"), at::tensor({2., 1.}, at::kDouble)));
  EXPECT_TRUE(at::equal(find(outputs.statistics, "router.drop_rate"), at::tensor({.25, .25}, at::kDouble)));
  EXPECT_TRUE(at::equal(find(outputs.statistics, "router.entropy"), at::tensor({.5, .5}, at::kDouble)));
}

TEST_F(RoutingLosses, ImbalanceIsTheLargestShareTimesTheExperts) {
  // all to one of two experts, then equal shares
  EXPECT_TRUE(at::equal(find(routing_outputs(calls, options).statistics, "router.imbalance"),
                        at::tensor({2., 1.}, at::kDouble)));
}

// V-MoE's losses against plain loops over the definitions of widenet.md 2.4, groups averaged.

// (sd / mean)^2 with the population's deviation
double squared_variation(const std::vector<double>& values) {
  double mean = 0;
  double variance = 0;
  for (const double v : values) mean += v / static_cast<double>(values.size());
  for (const double v : values) variance += (v - mean) * (v - mean) / static_cast<double>(values.size());
  return variance / (mean * mean);
}

class VMoeLosses : public testing::Test {
 protected:
  void SetUp() override {
    at::manual_seed(4);
    clean = at::randn({5, 3, 4}, at::kDouble);
    noisy = clean + 0.25 * at::randn({5, 3, 4}, at::kDouble);
    options.capacity_factor = 0;
    options.group_size = 2;
    options.importance_weight = options.load_weight = 1;
    routing = route(noisy, clean, options, true);
  }
  // mean over groups of the squared variation over experts of sum over tokens of value(token, expert)
  double expected(
      const std::function<double(const double* s0, std::int64_t token, std::int64_t expert)>& value) const {
    double total = 0;
    for (const auto& [begin, end] : {std::pair{0, 6}, std::pair{6, 12}, std::pair{12, 15}}) {
      std::vector<double> by_expert(4, 0.0);
      for (std::int64_t n = begin; n < end; ++n)
        for (std::int64_t j = 0; j < 4; ++j)
          by_expert[static_cast<std::size_t>(j)] += value(clean.data_ptr<double>() + 4 * n, n, j);
      total += squared_variation(by_expert) / 3;
    }
    return total;
  }
  at::Tensor clean;
  at::Tensor noisy;
  RouterOptions options;  // E = 4, K = 2, noise 1
  Routing routing;
};

TEST_F(VMoeLosses, ImportanceIsTheVariationOfCleanProbabilities) {
  const double value = expected([](const double* s0, std::int64_t, std::int64_t j) {
    double sum = 0;
    for (int i = 0; i < 4; ++i) sum += std::exp(s0[i]);
    return std::exp(s0[j]) / sum;
  });
  EXPECT_NEAR(routing.statistics.importance.item<double>(), value, 1e-12);
}

TEST_F(VMoeLosses, LoadIsTheVariationOfTheChanceToBeChosen) {
  const double value = expected([&](const double* s0, std::int64_t n, std::int64_t j) {
    std::vector<double> s(noisy.data_ptr<double>() + 4 * n, noisy.data_ptr<double>() + 4 * n + 4);
    std::ranges::sort(s, std::greater<>());
    const double z = (s[1] - s0[j]) / 0.25;  // t_n is the second largest noisy logit, sigma = 1 / E
    return 0.5 * std::erfc(z / std::sqrt(2));
  });
  EXPECT_NEAR(routing.statistics.load_loss.item<double>(), value, 1e-12);
}

TEST_F(VMoeLosses, AreAddedUnderTheirNames) {
  options.balance_weight = 0;
  options.importance_weight = .005;
  options.load_weight = .01;
  const auto losses = routing_outputs({routing.statistics, routing.statistics}, options).losses;
  ASSERT_EQ(losses.size(), 2);
  EXPECT_NEAR(find(losses, "importance").item<double>(), .01 * routing.statistics.importance.item<double>(),
              1e-14);
  EXPECT_NEAR(find(losses, "load").item<double>(), .02 * routing.statistics.load_loss.item<double>(), 1e-14);
}

TEST_F(VMoeLosses, AreUndefinedWithoutTheirWeight) {
  options.importance_weight = options.load_weight = 0;
  const auto other = route(noisy, clean, options, true).statistics;
  EXPECT_FALSE(other.importance.defined());
  EXPECT_FALSE(other.load_loss.defined());
}

// Options

std::string refusal(const std::function<void(RouterOptions&)>& change) {
  RouterOptions options;
  change(options);
  return stoa::test::thrown<ConfigError>([&] { options.validate(); });
}

TEST(RouterOptions, DefaultsAreValid) {
  EXPECT_NO_THROW(RouterOptions{}.validate());
}

TEST(RouterOptions, EveryBadValueIsNamed) {
  using O = RouterOptions;
  STOA_EXPECT_CONTAINS(refusal([](O& o) { o.experts = 0; }), "`router.experts` is 0; at least 1");
  STOA_EXPECT_CONTAINS(refusal([](O& o) { o.top_k = 0; }), "`router.top_k` is 0; at least 1");
  STOA_EXPECT_CONTAINS(refusal([](O& o) { o.top_k = 5; }),
                       "`router.top_k` is 5 but there are only `router.experts` = 4");
  STOA_EXPECT_CONTAINS(refusal([](O& o) { o.group_size = -1; }), "`router.group_size`");
  STOA_EXPECT_CONTAINS(refusal([](O& o) { o.capacity_factor = -1; }), "`router.capacity_factor` is -1");
  STOA_EXPECT_CONTAINS(refusal([](O& o) { o.capacity_factor = NAN; }), "`router.capacity_factor` is nan");
  STOA_EXPECT_CONTAINS(refusal([](O& o) { o.eval_capacity_factor = INFINITY; }),
                       "`router.eval_capacity_factor` is inf");
  STOA_EXPECT_CONTAINS(refusal([](O& o) { o.eval_capacity_factor = -0.5; }),
                       "`router.eval_capacity_factor` is -0.5; a finite number of at least 0, or -1");
  STOA_EXPECT_CONTAINS(refusal([](O& o) { o.noise = -1; }), "`router.noise`");
  STOA_EXPECT_CONTAINS(refusal([](O& o) { o.balance_weight = -0.01; }), "`router.balance_weight` is -0.01");
  STOA_EXPECT_CONTAINS(refusal([](O& o) { o.z_weight = NAN; }), "`router.z_weight`");
  STOA_EXPECT_CONTAINS(refusal([](O& o) { o.importance_weight = -1; }), "`router.importance_weight`");
  STOA_EXPECT_CONTAINS(refusal([](O& o) { o.load_weight = -1; }), "`router.load_weight`");
}

TEST(RouterOptions, AreNamedAsKeysOfTheirTable) {
  RouterOptions options;
  options.top_k = 9;
  STOA_EXPECT_CONTAINS(stoa::test::thrown<ConfigError>([&] { options.validate("model.router"); }),
                       "`model.router.top_k` is 9 but there are only `model.router.experts` = 4");
}

TEST(RouterOptions, LoadLossNeedsNoise) {
  STOA_EXPECT_CONTAINS(refusal([](RouterOptions& o) {
                         o.load_weight = 1;
                         o.noise = 0;
                       }),
                       "`router.noise` is 0");
}

TEST(RouterOptions, ExpertChoiceNeedsACapacity) {
  STOA_EXPECT_CONTAINS(refusal([](RouterOptions& o) {
                         o.routing = RoutingKind::kExpertChoice;
                         o.capacity_factor = 0;
                       }),
                       "`router.capacity_factor` is 0");
}

TEST(RouterOptions, AreReadByName) {
  RouterOptions options;
  const auto config = Config::from_text(
      "experts = 8\nfill = \"priority\"\ncapacity_rounding = \"ceil_to_4\"\n"
      "routing = \"expert_choice\"\nbalance_scope = \"depth\"\n",
      "recipe.toml");
  read_options(config, options);
  EXPECT_EQ(options.experts, 8);
  EXPECT_EQ(options.fill, FillOrder::kPriority);
  EXPECT_EQ(options.capacity_rounding, CapacityRounding::kCeilTo4);
  EXPECT_EQ(options.routing, RoutingKind::kExpertChoice);
  EXPECT_EQ(options.balance_scope, BalanceScope::kDepth);
}

}  // namespace
}  // namespace stoa::nn
