#include <gtest/gtest.h>

#include "ops/linear_cross_entropy_cases.h"
#include "support/numeric_gradient.h"

namespace stoa::ops::test {
namespace {

TEST(LinearCrossEntropyGradient, EqualsFiniteDifferences) {
  for (const auto& problem : loss_problems({9, 5, 13}, at::kDouble, at::kDouble)) {
    const auto error =
        stoa::test::gradient_error([&] { return problem.run().loss.pow(3); }, problem.leaves());
    EXPECT_LT(error, 1e-8) << problem.name();
  }
}

}  // namespace
}  // namespace stoa::ops::test
