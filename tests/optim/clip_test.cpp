#include "stoa/optim/clip.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/parameters.h"

namespace stoa::optim {
namespace {

using test::distance;
using test::doubles;
using test::parameter;
using test::set_gradient;

/// Two parameters with the gradients (3, 0) and (0, 4); a third has none.
std::vector<nn::NamedParameter> three_parameters() {
  std::vector<nn::NamedParameter> parameters = {
      parameter("a", doubles({1, 1})), parameter("b", doubles({1, 1})), parameter("c", doubles({1, 1}))};
  set_gradient(parameters[0], doubles({3, 0}));
  set_gradient(parameters[1], doubles({0, 4}));
  return parameters;
}

TEST(Clip, JointNormCountsMissingGradientsAsZero) {
  EXPECT_DOUBLE_EQ(gradient_norm(three_parameters()), 5);
}

TEST(Clip, JointNormCountsASharedTensorOnce) {
  auto parameters = three_parameters();
  parameters.push_back({"tied", parameters[0].tensor, 1});
  EXPECT_DOUBLE_EQ(gradient_norm(parameters), 5);
}

TEST(Clip, JointNormOfHalvesAndStridedTensors) {
  const auto half = parameter("a", at::zeros({2}, at::kBFloat16)),
             strided = parameter("b", at::zeros({2, 3}, at::kDouble));
  set_gradient(half, at::tensor({3.0, 0.0}));
  strided.tensor.mutable_grad() = at::full({3, 2}, std::sqrt(16.0 / 6), at::kDouble).t();
  EXPECT_NEAR(gradient_norm({half, strided}), 5, 1e-12);
}

TEST(Clip, JointNormDoesNotOverflowInFloat) {
  const auto w = parameter("w", at::zeros({4}));
  set_gradient(w, at::full({4}, 1e30));
  EXPECT_NEAR(gradient_norm({w}) / 2e30, 1, 1e-6);
}

TEST(Clip, GlobalClippingScalesAllGradientsAlike) {
  const auto parameters = three_parameters();
  EXPECT_DOUBLE_EQ(clip_global_norm(parameters, 1), 5);
  EXPECT_LT(distance(parameters[0].tensor.grad(), doubles({0.6, 0})), 1e-15);
  EXPECT_LT(distance(parameters[1].tensor.grad(), doubles({0, 0.8})), 1e-15);
  EXPECT_FALSE(parameters[2].tensor.grad().defined());
}

TEST(Clip, SmallGradientsStayAsTheyAre) {
  const auto parameters = three_parameters();
  EXPECT_DOUBLE_EQ(clip_global_norm(parameters, 5), 5);
  EXPECT_TRUE(at::equal(parameters[1].tensor.grad(), doubles({0, 4})));
}

TEST(Clip, GradientsThatAreNotFiniteAreReportedAndLeftAlone) {
  const auto parameters = three_parameters();
  set_gradient(parameters[0], doubles({INFINITY, 1}));
  EXPECT_EQ(clip_global_norm(parameters, 1), INFINITY);
  EXPECT_TRUE(at::equal(parameters[0].tensor.grad(), doubles({INFINITY, 1})));
}

TEST(Clip, EachTensorIsClippedByItsOwnNorm) {
  const auto parameters = three_parameters();
  EXPECT_DOUBLE_EQ(clip_each_norm(parameters, 3.5), 5);
  EXPECT_TRUE(at::equal(parameters[0].tensor.grad(), doubles({3, 0})));
  EXPECT_LT(distance(parameters[1].tensor.grad(), doubles({0, 3.5})), 1e-15);
}

TEST(Clip, EachSliceOfAFusedTensorIsClippedByItsOwnNorm) {
  const auto fused = parameter("qkv", at::zeros({4, 1}, at::kDouble), 2);
  set_gradient(fused, doubles({3, 4, 0.3, 0.4}).reshape({4, 1}));
  clip_each_norm({fused}, 1);
  EXPECT_LT(distance(fused.tensor.grad().flatten(), doubles({0.6, 0.8, 0.3, 0.4})), 1e-15);
}

TEST(Clip, TheNormDoesNotDependOnTheNumberOfThreads) {
  at::manual_seed(1);
  const auto w = parameter("w", at::zeros({300001}));
  set_gradient(w, at::randn({300001}));
  at::set_num_threads(1);
  const double one = gradient_norm({w});
  at::set_num_threads(3);
  EXPECT_EQ(gradient_norm({w}), one);
}

}  // namespace
}  // namespace stoa::optim
