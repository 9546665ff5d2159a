#include "stoa/nn/init.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>

namespace stoa::nn {
namespace {
thread_local int skipping = 0;
}  // namespace

SkipInitialisation::SkipInitialisation() {
  ++skipping;
}
SkipInitialisation::~SkipInitialisation() {
  --skipping;
}

void glorot_uniform_(const at::Tensor& tensor, double fan_in, double fan_out) {
  if (skipping > 0) return;
  const at::NoGradGuard no_grad;
  const double bound = std::sqrt(6.0 / (fan_in + fan_out));
  tensor.uniform_(-bound, bound);
}

void normal_(const at::Tensor& tensor, double deviation) {
  if (skipping > 0) return;
  const at::NoGradGuard no_grad;
  tensor.normal_(0.0, deviation);
}

void truncated_normal_(const at::Tensor& tensor, double deviation) {
  if (skipping > 0) return;
  const at::NoGradGuard no_grad;
  // inverse distribution function of a uniform number: 2 Phi(x) - 1 = erf(x / sqrt 2)
  const double edge = std::erf(2.0 / std::numbers::sqrt2);
  tensor.uniform_(-edge, edge)
      .erfinv_()
      .mul_(std::numbers::sqrt2 * deviation)
      .clamp_(-2.0 * deviation, 2.0 * deviation);
}

void glorot_normal_(const at::Tensor& tensor, double fan_in, double fan_out) {
  constexpr double kCutDeviation = 0.87962566103423978;  // of a standard normal cut at two deviations
  truncated_normal_(tensor, std::sqrt(2.0 / (fan_in + fan_out)) / kCutDeviation);
}

void constant_(const at::Tensor& tensor, double value) {
  if (skipping > 0) return;
  const at::NoGradGuard no_grad;
  tensor.fill_(value);
}

}  // namespace stoa::nn
