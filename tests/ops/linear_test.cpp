#include "stoa/ops/linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "stoa/base/errors.h"
#include "stoa/ops/simd.h"
#include "stoa/tensor/runtime.h"
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
  auto x = at::randn({c.rows, c.in}).to(type).requires_grad_();
  auto weight =
      (at::randn({c.out, c.in}) / std::sqrt(static_cast<double>(c.in) + 1)).to(type).requires_grad_();
  auto bias = c.bias ? at::randn({c.out}).to(type).requires_grad_() : at::Tensor();
  const auto grad = at::randn({c.rows, c.out}).to(type);
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

at::Tensor to_bf16(const at::Tensor& t) {
  return t.to(at::kBFloat16).to(t.scalar_type());
}

/// linear_reference with the operands of all three products rounded to bfloat16.
at::Tensor rounded_reference(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             Activation activation) {
  const auto rounded = [](const at::Tensor& t) { return t + (to_bf16(t) - t).detach(); };
  auto product = at::linear(rounded(x), rounded(weight));
  product.register_hook([](const at::Tensor& grad) { return to_bf16(grad); });
  const auto none = at::eye(weight.size(0), product.options());
  return linear_reference(product, none, bias, activation);
}

at::Tensor plain_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        Activation activation) {
  return linear(x, weight, bias, activation);
}

at::Tensor bf16_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       Activation activation) {
  return linear(x, weight, bias, activation, /*bf16=*/true);
}

class Linear : public ::testing::TestWithParam<Case> {};

TEST_P(Linear, EqualsTheReferenceInSinglePrecision) {
  expect_near(run(GetParam(), at::kFloat, plain_linear), run(GetParam(), at::kDouble, linear_reference),
              3e-6);
}

TEST_P(Linear, EqualsTheReferenceInDoublePrecision) {
  expect_near(run(GetParam(), at::kDouble, plain_linear), run(GetParam(), at::kDouble, linear_reference),
              1e-12);
}

TEST_P(Linear, RoundsOnlyTheOperandsInBfloat16) {
  if (!has_gemm_blocks(Operands::kBfloat16)) GTEST_SKIP() << "this CPU does not multiply bf16 natively";
  const auto found = run(GetParam(), at::kFloat, bf16_linear);
  const auto wanted = run(GetParam(), at::kDouble, rounded_reference);
  expect_near(found.y, wanted.y, 3e-6, "y");
  expect_near(found.bias, wanted.bias, 3e-6, "bias");
  // where the gradient in front of an activation lies between two bfloat16 numbers, either is right
  const double tolerance = GetParam().activation == Activation::kNone ? 3e-6 : 1e-3;
  expect_near(found.x, wanted.x, tolerance, "x");
  expect_near(found.weight, wanted.weight, tolerance, "weight");
}

TEST_P(Linear, DoesNotDependOnTheNumberOfThreads) {
  for (const auto form : {plain_linear, bf16_linear}) {
    const auto one = run(GetParam(), at::kFloat, form);
    at::set_num_threads(3);
    const auto three = run(GetParam(), at::kFloat, form);
    at::set_num_threads(1);
    EXPECT_TRUE(one.y.equal(three.y) && one.x.equal(three.x) && one.weight.equal(three.weight) &&
                one.bias.equal(three.bias));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, Linear,
    ::testing::Values(
        Case{1, 1, 1, Activation::kNone, true}, Case{0, 5, 7, Activation::kGeluTanh, true},
        Case{3, 31, 65, Activation::kGeluTanh, true}, Case{1, 192, 500, Activation::kNone, true},
        Case{2, 100, 70, Activation::kGeluErf, true}, Case{7, 77, 300, Activation::kRelu, false},
        Case{9, 77, 300, Activation::kRelu, false}, Case{197, 64, 192, Activation::kNone, true},
        Case{130, 192, 768, Activation::kGeluTanh, true}, Case{333, 65, 129, Activation::kGeluErf, false},
        Case{67, 1500, 100, Activation::kRelu, true}, Case{700, 17, 600, Activation::kNone, false}));

TEST(Linear, TakesViewsOfAnyStrideAndRank) {
  torch::manual_seed(5);
  const auto x = at::randn({4, 9, 6}).transpose(0, 2), weight = at::randn({4, 8}).t(),
             bias = at::randn({16}).slice(0, 0, 16, 2);
  const auto y = linear(x, weight, bias, Activation::kRelu);
  EXPECT_EQ(y.sizes(), (std::vector<std::int64_t>{6, 9, 8}));
  EXPECT_TRUE(y.allclose(linear_reference(x, weight, bias, Activation::kRelu), 1e-5, 1e-5));
}

TEST(Linear, EverySimdLevelAgrees) {
  for (const Case& c :
       {Case{70, 50, 90, Activation::kGeluTanh, true}, {7, 150, 90, Activation::kNone, true}}) {
    const auto wanted = run(c, at::kDouble, linear_reference);
    for (const auto& level : simd_levels()) {
      limit_simd(level);
      expect_near(run(c, at::kFloat, plain_linear), wanted, 3e-6);
    }
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

TEST(Linear, AutocastRoundsInTheBlocksAndKeepsSinglePrecision) {
  torch::manual_seed(6);
  const auto x = at::randn({9, 33}), weight = at::randn({20, 33}), bias = at::randn({20});
  Runtime runtime;
  runtime.bf16 = true;
  const AutocastScope autocast(runtime);
  const auto y = linear(x, weight, bias, Activation::kRelu);
  if (!has_gemm_blocks(Operands::kBfloat16)) {
    EXPECT_EQ(y.scalar_type(), at::kBFloat16);
    return;
  }
  EXPECT_TRUE(y.equal(linear(x, weight, bias, Activation::kRelu, true)));
  EXPECT_TRUE(linear(x.to(at::kBFloat16), weight, bias).allclose(linear(x, weight, bias), 1e-5, 1e-5));
  forbid_gemm_blocks(true);
  EXPECT_EQ(linear(x, weight, bias).scalar_type(), at::kBFloat16);
  forbid_gemm_blocks(false);
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
