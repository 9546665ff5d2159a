#include "stoa/nn/moe/statistics_row.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

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

TEST(StatisticsRow, IsOfOneRoutingGroup) {
  auto options = options_of();
  options.group_size = 1;
  const auto logits = at::randn({2, 5, 3});
  const auto said = route(logits, logits, options, /*training=*/true).statistics;
  STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([&] { statistics_row({said}, options, at::kFloat); }),
                       "only group");
}

}  // namespace
}  // namespace stoa::nn
