#include "stoa/ops/linear.h"

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
  std::int64_t rows, in, out;
  Activation activation;
  bool bias;
};

void PrintTo(const Case& c, std::ostream* to) {
  *to << c.rows << " x " << c.in << " -> " << c.out << ", activation " << static_cast<int>(c.activation)
      << (c.bias ? ", bias" : "");
}

struct Result {
  at::Tensor y, x, weight, bias;
};

/// Output and gradients of `form` for fixed random inputs of type `type`; the gradient of the output is
/// random too.
template <class Form>
Result run(const Case& c, at::ScalarType type, const Form& form) {
  torch::manual_seed(4);
  auto x = at::randn({c.rows, c.in}, at::kDouble).to(type).requires_grad_();
  auto weight = (at::randn({c.out, c.in}, at::kDouble) / std::sqrt(static_cast<double>(c.in) + 1))
                    .to(type)
                    .requires_grad_();
  auto bias = c.bias ? at::randn({c.out}, at::kDouble).to(type).requires_grad_() : at::Tensor();
  const auto grad = at::randn({c.rows, c.out}, at::kDouble).to(type);
  const auto y = form(x, weight, bias, c.activation);
  y.backward(grad);
  return {y.detach(), x.grad(), weight.grad(), c.bias ? bias.grad() : at::zeros({1})};
}

void expect_near(const at::Tensor& found, const at::Tensor& wanted, double tolerance, const char* what) {
  ASSERT_EQ(found.sizes(), wanted.sizes()) << what;
  if (wanted.numel() == 0) return;
  const double scale = std::max(1.0, wanted.abs().max().item<double>());
  EXPECT_LT((found.to(at::kDouble) - wanted.to(at::kDouble)).abs().max().item<double>() / scale, tolerance)
      << what;
}

void expect_near(const Result& found, const Result& wanted, double tolerance) {
  expect_near(found.y, wanted.y, tolerance, "y");
  expect_near(found.x, wanted.x, tolerance, "x");
  expect_near(found.weight, wanted.weight, tolerance, "weight");
  expect_near(found.bias, wanted.bias, tolerance, "bias");
}

class Linear : public ::testing::TestWithParam<Case> {};

TEST_P(Linear, EqualsTheReferenceInSinglePrecision) {
  expect_near(run(GetParam(), at::kFloat, linear), run(GetParam(), at::kDouble, linear_reference), 3e-6);
}

TEST_P(Linear, EqualsTheReferenceInDoublePrecision) {
  expect_near(run(GetParam(), at::kDouble, linear), run(GetParam(), at::kDouble, linear_reference), 1e-12);
}

TEST_P(Linear, DoesNotDependOnTheNumberOfThreads) {
  const auto one = run(GetParam(), at::kFloat, linear);
  at::set_num_threads(3);
  const auto three = run(GetParam(), at::kFloat, linear);
  at::set_num_threads(1);
  EXPECT_TRUE(one.y.equal(three.y) && one.x.equal(three.x) && one.weight.equal(three.weight) &&
              one.bias.equal(three.bias));
}

INSTANTIATE_TEST_SUITE_P(All, Linear,
                         ::testing::Values(Case{1, 1, 1, Activation::kNone, true},
                                           Case{0, 5, 7, Activation::kGeluTanh, true},
                                           Case{3, 31, 65, Activation::kGeluTanh, true},
                                           Case{197, 64, 192, Activation::kNone, true},
                                           Case{130, 192, 768, Activation::kGeluTanh, true},
                                           Case{333, 65, 129, Activation::kGeluErf, false},
                                           Case{67, 1500, 100, Activation::kRelu, true},
                                           Case{700, 17, 600, Activation::kNone, false}));

TEST(Linear, TakesViewsOfAnyStrideAndRank) {
  torch::manual_seed(5);
  const auto x = at::randn({4, 9, 6}).transpose(0, 2), weight = at::randn({4, 8}).t(),
             bias = at::randn({16}).slice(0, 0, 16, 2);
  const auto y = linear(x, weight, bias, Activation::kRelu);
  EXPECT_EQ(y.sizes(), (std::vector<std::int64_t>{6, 9, 8}));
  EXPECT_TRUE(y.allclose(linear_reference(x, weight, bias, Activation::kRelu), 1e-5, 1e-5));
}

TEST(Linear, EverySimdLevelAgrees) {
  const Case c{70, 50, 90, Activation::kGeluTanh, true};
  const auto wanted = run(c, at::kDouble, linear_reference);
  for (const auto& level : simd_levels()) {
    limit_simd(level);
    expect_near(run(c, at::kFloat, linear), wanted, 3e-6);
  }
  limit_simd("auto");
}

TEST(Linear, NonFiniteInputsReachTheOutput) {
  auto x = at::ones({2, 3});
  x[0][1] = std::numeric_limits<float>::quiet_NaN();
  const auto y = linear(x, at::ones({4, 3}), at::Tensor(), Activation::kNone);
  EXPECT_TRUE(y[0].isnan().all().item<bool>());
  EXPECT_TRUE(y[1].equal(at::full({4}, 3.0F)));
}

TEST(Linear, OnlyWhatIsAskedForIsDifferentiated) {
  const auto x = at::randn({5, 3});
  auto weight = at::randn({4, 3}).requires_grad_();
  linear(x, weight, at::zeros({4}), Activation::kNone).sum().backward();
  EXPECT_TRUE(weight.grad().allclose(x.sum(0).expand({4, 3}), 1e-5, 1e-5));
}

TEST(Linear, RefusesShapesThatDoNotFit) {
  STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([] {
                         linear(at::zeros({2, 3}), at::zeros({4, 5}), at::Tensor());
                       }),
                       "weight");
  STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([] {
                         linear(at::zeros({2, 3}), at::zeros({4, 3}), at::zeros({3}));
                       }),
                       "bias");
}

}  // namespace
}  // namespace stoa::ops
