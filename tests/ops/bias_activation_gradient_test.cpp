#include <gtest/gtest.h>

#include "ops/fused_cases.h"
#include "stoa/ops/bias_activation.h"
#include "support/numeric_gradient.h"

namespace stoa::ops::test {
namespace {

TEST(BiasActivationGradient, EqualsFiniteDifferences) {
  at::manual_seed(2);
  const auto x = at::randn({3, 7}, at::kDouble).requires_grad_(true);
  const auto bias = at::randn({7}, at::kDouble).requires_grad_(true);
  every_simd_level([&] {
    for (const auto f : {Activation::kNone, Activation::kGeluTanh, Activation::kGeluErf, Activation::kRelu})
      EXPECT_LT(
          stoa::test::gradient_error([&] { return bias_activation(x, bias, f).pow(3).sum(); }, {x, bias}),
          1e-8)
          << static_cast<int>(f);
  });
}

}  // namespace
}  // namespace stoa::ops::test
