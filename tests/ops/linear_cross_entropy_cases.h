#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <cmath>
#include <string>
#include <vector>

#include "stoa/ops/linear_cross_entropy.h"

namespace stoa::ops::test {

struct LossSize {
  std::int64_t rows, dim, classes;
};

/// Arguments of linear_cross_entropy; x, weight and bias are leaves that require gradients.
struct LossProblem {
  LossSize size;
  at::Tensor x, weight, bias, target;
  double smoothing;

  std::string name() const {
    return std::to_string(size.rows) + " x " + std::to_string(size.dim) + " x " +
           std::to_string(size.classes) + (bias.defined() ? ", bias" : "") +
           (smoothing > 0 ? ", smoothed" : "");
  }
  std::vector<at::Tensor> leaves() const {
    if (bias.defined()) return {x, weight, bias};
    return {x, weight};
  }
  LinearCrossEntropy run(bool bf16 = false) const {
    return linear_cross_entropy(x, weight, bias, target, smoothing, -100, bf16);
  }
  LinearCrossEntropy reference() const {
    return linear_cross_entropy_reference(x, weight, bias, target, smoothing);
  }
};

/// Without and with bias, each without and with smoothing; of several rows, every fifth or so does not count.
/// Numbers are rounded to `type` and given in the type `as`, so that a problem can be solved in a wider one.
inline std::vector<LossProblem> loss_problems(const LossSize& size, at::ScalarType type, at::ScalarType as) {
  at::manual_seed(11);
  const auto leaf = [&](at::IntArrayRef shape, double scale) {
    return (at::randn(shape, at::kDouble) * scale).to(type).to(as).requires_grad_();
  };
  const double scale = 2 / std::sqrt(static_cast<double>(size.dim) + 1);
  std::vector<LossProblem> problems;
  for (const bool biased : {false, true})
    for (const double smoothing : {0.0, 0.1}) {
      const auto x = leaf({size.rows, size.dim}, 1), weight = leaf({size.classes, size.dim}, scale);
      const auto bias = biased ? leaf({size.classes}, 1) : at::Tensor();
      auto target = at::randint(size.classes, {size.rows}, at::kLong);
      if (size.rows > 1) target.masked_fill_(at::rand({size.rows}).lt(0.2), -100);
      problems.push_back({size, x, weight, bias, target, smoothing});
    }
  return problems;
}

}  // namespace stoa::ops::test
