#include <gtest/gtest.h>

#include "ops/mixture_problem.h"
#include "support/numeric_gradient.h"

namespace stoa::ops::test {
namespace {

class MixtureGradient : public testing::TestWithParam<MixtureBackend> {
 protected:
  double error(const Problem& problem, Activation hidden, Activation output) const {
    return stoa::test::gradient_error(
        [&] {
          return (problem.run({hidden, output, GetParam()}) * problem.direction).sum();
        },
        problem.leaves());
  }
};

TEST_P(MixtureGradient, EqualsFiniteDifferences) {
  for (const auto& problem : make_problems(at::kDouble))
    EXPECT_LT(error(problem, Activation::kGeluTanh, Activation::kNone), 1e-8) << problem.name;
}

TEST_P(MixtureGradient, EqualsFiniteDifferencesThroughAnOutputActivation) {
  for (const auto& problem : make_problems(at::kDouble))
    EXPECT_LT(error(problem, Activation::kGeluErf, Activation::kGeluTanh), 1e-8) << problem.name;
}

const char* backend_name(const testing::TestParamInfo<MixtureBackend>& info) {
  constexpr const char* names[] = {"naive", "padded", "sorted"};
  return names[static_cast<std::size_t>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(Backends, MixtureGradient, testing::ValuesIn(kBackends), backend_name);

}  // namespace
}  // namespace stoa::ops::test
