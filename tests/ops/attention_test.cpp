#include "stoa/ops/attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "stoa/base/errors.h"
#include "stoa/ops/simd.h"
#include "support/thrown.h"

namespace stoa::ops {
namespace {

struct Case {
  std::int64_t batch, tokens, heads, head_dim;
};

void PrintTo(const Case& c, std::ostream* to) {
  *to << c.batch << " x " << c.tokens << ", " << c.heads << " heads of " << c.head_dim;
}

struct Result {
  at::Tensor y, gradient;
};

template <class Form>
Result run(const Case& c, at::ScalarType type, const Form& form) {
  torch::manual_seed(6);
  const std::int64_t dim = c.heads * c.head_dim;
  auto qkv = (at::randn({c.batch, c.tokens, 3 * dim}, at::kDouble) * 1.5).to(type).requires_grad_();
  const auto y = form(qkv, c.heads);
  y.backward(at::randn({c.batch, c.tokens, dim}, at::kDouble).to(type));
  return {y.detach(), qkv.grad()};
}

at::Tensor fused(const at::Tensor& qkv, std::int64_t heads) {
  return attention(qkv, heads);
}

void expect_near(const Result& found, const Result& wanted, double tolerance) {
  for (const auto& [a, b] : {std::pair{found.y, wanted.y}, {found.gradient, wanted.gradient}}) {
    ASSERT_EQ(a.sizes(), b.sizes());
    if (b.numel() == 0) continue;
    const double scale = std::max(1.0, b.abs().max().item<double>());
    EXPECT_LT((a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>() / scale, tolerance);
  }
}

class Attention : public ::testing::TestWithParam<Case> {};

TEST_P(Attention, EqualsTheReferenceInSinglePrecision) {
  expect_near(run(GetParam(), at::kFloat, fused), run(GetParam(), at::kDouble, attention_reference), 5e-6);
}

TEST_P(Attention, EqualsTheReferenceInDoublePrecision) {
  expect_near(run(GetParam(), at::kDouble, fused), run(GetParam(), at::kDouble, attention_reference), 1e-12);
}

TEST_P(Attention, DoesNotDependOnTheNumberOfThreads) {
  const auto one = run(GetParam(), at::kFloat, fused);
  at::set_num_threads(3);
  const auto three = run(GetParam(), at::kFloat, fused);
  at::set_num_threads(1);
  EXPECT_TRUE(one.y.equal(three.y) && one.gradient.equal(three.gradient));
}

INSTANTIATE_TEST_SUITE_P(All, Attention,
                         ::testing::Values(Case{1, 1, 1, 1}, Case{2, 5, 3, 7}, Case{3, 49, 2, 16},
                                           Case{2, 197, 3, 64}, Case{1, 65, 1, 80}, Case{1, 1500, 1, 8},
                                           Case{0, 4, 2, 8}));

TEST(Attention, EverySimdLevelAgrees) {
  const Case c{2, 70, 2, 20};
  const auto wanted = run(c, at::kDouble, attention_reference);
  for (const auto& level : simd_levels()) {
    limit_simd(level);
    expect_near(run(c, at::kFloat, fused), wanted, 5e-6);
  }
  limit_simd("auto");
}

TEST(Attention, LargeScoresDoNotOverflow) {
  auto qkv = at::full({1, 6, 12}, 60.0F);
  qkv[0][2] = -60;
  EXPECT_TRUE(attention(qkv, 2).allclose(attention_reference(qkv, 2), 1e-5, 1e-5));
}

TEST(Attention, ANanStaysInItsSample) {
  auto qkv = at::randn({2, 5, 12});
  qkv[0][1][1] = std::numeric_limits<float>::quiet_NaN();
  const auto y = attention(qkv, 2);
  EXPECT_TRUE(y[0][1][0].isnan().item<bool>());
  EXPECT_FALSE(y[1].isnan().any().item<bool>());
}

TEST(Attention, TakesViews) {
  const auto wide = at::randn({2, 9, 60}), qkv = wide.slice(2, 12, 48);
  EXPECT_TRUE(attention(qkv, 3).allclose(attention_reference(qkv, 3), 1e-5, 1e-5));
}

TEST(Attention, RefusesWidthsThatDoNotDivide) {
  STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([] {
                         attention(at::zeros({1, 2, 12}), 5);
                       }),
                       "3 x heads = 15");
}

}  // namespace
}  // namespace stoa::ops
