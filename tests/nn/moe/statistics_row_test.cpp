#include "stoa/nn/moe/statistics_row.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa::nn {
namespace {

RouterOptions options_of() {
  RouterOptions options;
  options.experts = 3;
  options.z_weight = 0.3;
  options.balance_scope = BalanceScope::kDepth;
  return options;
}

/// What a router says of tokens with these logits.
RoutingStatistics said_of(const at::Tensor& logits) {
  return route(logits, logits, options_of(), /*training=*/true).statistics;
}

TEST(StatisticsRow, GivesTheSameLossesGradientsAndStatistics) {
  at::manual_seed(1);
  const auto options = options_of();
  const auto a = at::randn({2, 5, 3}, at::kDouble).requires_grad_();
  const auto b = at::randn({1, 4, 3}, at::kDouble).requires_grad_();
  const auto wanted = routing_outputs({said_of(a), said_of(b)}, options);
  const auto row = statistics_row({said_of(a), said_of(b)}, options, at::kDouble);
  ASSERT_EQ(row.numel(), 2 * statistics_size(options));
  const auto found = routing_outputs(statistics_of(row, options), options);
  ASSERT_EQ(found.losses.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(at::equal(found.losses[i].value, wanted.losses[i].value)) << wanted.losses[i].name;
    wanted.losses[i].value.backward({}, /*retain_graph=*/true);
    const auto of_a = a.grad().clone(), of_b = b.grad().clone();
    a.mutable_grad().reset();
    b.mutable_grad().reset();
    found.losses[i].value.backward({}, /*retain_graph=*/true);
    EXPECT_TRUE(at::allclose(a.grad(), of_a, 1e-14, 1e-16)) << wanted.losses[i].name;
    EXPECT_TRUE(at::allclose(b.grad(), of_b, 1e-14, 1e-16)) << wanted.losses[i].name;
    a.mutable_grad().reset();
    b.mutable_grad().reset();
  }
  ASSERT_EQ(found.statistics.size(), wanted.statistics.size());
  for (std::size_t i = 0; i < wanted.statistics.size(); ++i)
    EXPECT_TRUE(at::equal(found.statistics[i].value, wanted.statistics[i].value))
        << wanted.statistics[i].name;
}

TEST(StatisticsRow, KeepsRoutingGroupsApart) {
  auto options = options_of();
  options.group_size = 2;
  const auto said = [&](std::int64_t samples) {
    const auto logits = at::randn({samples, 5, 3}, at::kDouble);
    return route(logits, logits, options, /*training=*/true).statistics;
  };
  const auto a = said(5), b = said(5);
  const auto groups = routing_groups(5, options, nullptr);
  ASSERT_EQ(a.fraction.size(0), groups);
  const auto row = statistics_row({a, b}, options, at::kDouble);
  ASSERT_EQ(row.numel(), 2 * statistics_size(options, groups));
  const auto wanted = routing_outputs({a, b}, options);
  const auto found = routing_outputs(statistics_of(row, options, groups), options);
  for (std::size_t i = 0; i < wanted.losses.size(); ++i)
    EXPECT_TRUE(at::equal(found.losses[i].value, wanted.losses[i].value)) << wanted.losses[i].name;
  STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([&] {
                         statistics_row({a, said(2)}, options, at::kDouble);
                       }),
                       "as many groups");
}

/// Processes with so many samples, one of which asks.
struct Parts : ExpertExchange {
  explicit Parts(std::vector<std::int64_t> samples) : samples(std::move(samples)) {}
  std::int64_t parts() const override { return std::ssize(samples); }
  std::int64_t part() const override { return 0; }
  at::Tensor gather(const at::Tensor&) const override {
    const auto of_all = at::tensor(samples, at::kLong);
    return at::stack({of_all, at::ones_like(of_all)}, 1);
  }
  std::int64_t holders() const override { return 1; }
  std::int64_t holder() const override { return 0; }
  at::Tensor trade(const at::Tensor& rows, const Counts&, const Counts&) const override { return rows; }

  std::vector<std::int64_t> samples;
};

TEST(StatisticsRow, CountsTheGroupsOfAllPartsWherePartsShareSome) {
  auto options = options_of();
  const auto groups = [&](std::int64_t size, const std::vector<std::int64_t>& samples) {
    options.group_size = size;
    const Parts parts(samples);
    return routing_groups(samples[0], options, &parts);
  };
  EXPECT_EQ(groups(0, {6, 5}), 1);
  EXPECT_EQ(groups(3, {6, 3}), 2);  // its own
  EXPECT_EQ(groups(3, {6, 5}), 4);
  EXPECT_EQ(groups(4, {6, 6}), 3);
  EXPECT_EQ(groups(20, {6, 6}), 1);
}

}  // namespace
}  // namespace stoa::nn
