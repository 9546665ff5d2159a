#include <gtest/gtest.h>

#include "ops/fused_cases.h"
#include "ops/residual_norm_cases.h"
#include "support/numeric_gradient.h"

namespace stoa::ops::test {
namespace {

TEST(ResidualNormGradient, EqualsFiniteDifferences) {
  every_simd_level([] {
    for (const auto& problem : norm_problems(3, 7, {at::kDouble, at::kDouble, at::kDouble})) {
      const auto error = stoa::test::gradient_error(
          [&] {
            auto loss = at::zeros({}, at::kDouble);
            for (const auto& result : problem.run()) loss = loss + result.pow(3).sum();
            return loss;
          },
          problem.leaves());
      EXPECT_LT(error, 1e-7) << problem.name;
    }
  });
}

}  // namespace
}  // namespace stoa::ops::test
