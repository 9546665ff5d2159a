// Finite differences in double through a whole two-layer WideNet, balance loss included.
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>

#include "stoa/systems/wide_net/model.h"

namespace stoa::wide_net {
namespace {

/// Largest difference between analytic and central-difference gradients over `samples` entries of every
/// parameter.
double worst_difference(WideNetImpl& model, const at::Tensor& images, std::int64_t samples) {
  const auto weights = at::randn({images.size(0), 3}, at::kDouble);
  const auto loss = [&] {
    const auto output = model.classify(images);
    auto total = (output.logits * weights).sum();
    for (const auto& side : output.side.losses) total = total + side.value;
    return total;
  };
  model.zero_grad();
  loss().backward();
  const double step = 1e-6;
  double worst = 0;
  for (const auto& parameter : nn::distinct_parameters(model)) {
    const auto values = parameter.tensor.detach().view(-1);
    const auto gradient = parameter.tensor.grad().view(-1);
    torch::NoGradGuard no_grad;
    for (std::int64_t s = 0; s < std::min(samples, values.numel()); ++s) {
      const std::int64_t i = s * values.numel() / std::min(samples, values.numel());
      const double before = values[i].item<double>();
      values[i] = before + step;
      const double above = loss().item<double>();
      values[i] = before - step;
      const double below = loss().item<double>();
      values[i] = before;
      const double numeric = (above - below) / (2 * step), analytic = gradient[i].item<double>();
      const double apart = std::abs(numeric - analytic) / std::max(1.0, std::abs(numeric));
      worst = std::max(worst, std::isnan(apart) ? HUGE_VAL : apart);
    }
  }
  return worst;
}

void check(const std::function<void(WideNetOptions&)>& change) {
  WideNetOptions o;
  o.patch = 4;
  o.dim = 8;
  o.depth = 2;
  o.heads = 2;
  o.mlp_dim = 10;
  o.representation = true;
  o.class_slot = ClassSlot::kZero;
  o.router.experts = 3;
  o.router.balance_weight = 0.5;
  o.router.eval_capacity_factor = 1.2;
  change(o);
  torch::manual_seed(7);
  WideNetImpl model(o, {1, 8, 3});
  model.to(at::kDouble);
  model.eval();
  {
    torch::NoGradGuard no_grad;
    for (auto& parameter : nn::distinct_parameters(model))
      parameter.tensor.add_(at::randn_like(parameter.tensor), 0.3);
  }
  EXPECT_LT(worst_difference(model, at::randn({2, 1, 8, 8}, at::kDouble), 6), 1e-6);
}

TEST(WideNetGradient, SharedMixtureWithDrops) {
  check([](WideNetOptions&) {});
}
TEST(WideNetGradient, RenormalisedGatesAndZLoss) {
  check([](WideNetOptions& o) {
    o.router.renormalise_gates = true;
    o.router.z_weight = 0.1;
  });
}
TEST(WideNetGradient, BalancePooledOverDepths) {
  check([](WideNetOptions& o) { o.router.balance_scope = nn::BalanceScope::kDepth; });
}
TEST(WideNetGradient, PaddedAndNaiveBackEnds) {
  check([](WideNetOptions& o) { o.backend = ops::MixtureBackend::kPadded; });
  check([](WideNetOptions& o) { o.backend = ops::MixtureBackend::kNaive; });
}
TEST(WideNetGradient, DenseAndMapPooling) {
  check([](WideNetOptions& o) {
    o.mixture_layers = 0;
    o.pooling = Pooling::kMap;
    o.layer_scale = 0.5;
  });
}

}  // namespace
}  // namespace stoa::wide_net
