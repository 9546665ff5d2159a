// Finite differences through router, experts and every router loss at once.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "stoa/nn/moe/mixture.h"
#include "support/numeric_gradient.h"

namespace stoa::nn {
namespace {

MixtureOptions small() {
  MixtureOptions options;
  options.dim = 5;
  options.hidden = 6;
  options.router.balance_weight = 0.5;
  options.router.z_weight = 0.1;
  return options;
}

// Error of the gradients of sum(R * y) + all router losses in x and every parameter. The noise is the same in
// each evaluation, and no token's choice may be so near to another that a step changes it.
double gradient_error(const MixtureOptions& options) {
  at::manual_seed(5);
  Mixture mixture(options);
  mixture->to(at::kDouble);
  const auto x = at::randn({3, 4, options.dim}, at::kDouble).requires_grad_(true);
  const auto direction = at::randn({3, 4, options.dim}, at::kDouble);
  const auto forward = [&] {
    at::manual_seed(6);
    return mixture->forward(x);
  };
  const auto sorted = std::get<0>(forward().routing.probabilities.sort(1, true));
  const auto gaps = sorted.narrow(1, 0, sorted.size(1) - 1) - sorted.narrow(1, 1, sorted.size(1) - 1);
  EXPECT_GT(gaps.min().item<double>(), 1e-4)
      << "the point lies on a boundary of the choice; take another seed";
  const auto loss = [&] {
    const auto result = forward();
    auto total = (result.output * direction).sum();
    for (const auto& [name, value] : routing_outputs({result.statistics}, options.router).losses)
      total = total + value;
    return total;
  };
  auto inputs = mixture->parameters();
  inputs.push_back(x);
  return stoa::test::gradient_error(loss, inputs);
}

TEST(MixtureLayerGradient, WithDroppingAndNoise) {
  EXPECT_LT(gradient_error(small()), 1e-8);
}

TEST(MixtureLayerGradient, WithRenormalisedGates) {
  auto options = small();
  options.router.renormalise_gates = true;
  EXPECT_LT(gradient_error(options), 1e-8);
}

TEST(MixtureLayerGradient, WithDropoutAndAnOutputActivation) {
  auto options = small();
  options.dropout = 0.3;
  options.output_activation = ops::Activation::kGeluTanh;
  EXPECT_LT(gradient_error(options), 1e-8);
}

TEST(MixtureLayerGradient, WithVMoeLossesAndGroups) {
  auto options = small();
  options.router.importance_weight = 0.3;
  options.router.load_weight = 0.3;
  options.router.group_size = 2;
  options.router.capacity_rounding = CapacityRounding::kCeilTo4;
  EXPECT_LT(gradient_error(options), 1e-8);
}

TEST(MixtureLayerGradient, WithExpertChoice) {
  auto options = small();
  options.router.routing = RoutingKind::kExpertChoice;
  options.router.renormalise_gates = true;
  EXPECT_LT(gradient_error(options), 1e-8);
}

}  // namespace
}  // namespace stoa::nn
