#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "stoa/ops/residual_norm.h"

namespace stoa::ops::test {

/// Arguments of residual_norm, or of layer_norm where y is undefined; all but factor are leaves that require
/// gradients.
struct NormProblem {
  std::string name;
  at::Tensor x, y, bias, gamma, beta, scale, factor;

  static constexpr double kEps = 0.1;  // in rows of one number, rounding errors grow with 1 / sqrt(eps)

  std::vector<at::Tensor> leaves() const {
    std::vector<at::Tensor> given;
    for (const auto& tensor : {x, y, bias, gamma, beta, scale})
      if (tensor.defined()) given.push_back(tensor);
    return given;
  }
  std::vector<at::Tensor> run() const {
    if (!y.defined()) return {layer_norm(x, gamma, beta, kEps)};
    const auto [sum, normed] = residual_norm(x, y, bias, gamma, beta, kEps, scale, factor);
    return {sum, normed};
  }
  std::vector<at::Tensor> reference() const {
    if (!y.defined()) return {layer_norm_reference(x, gamma, beta, kEps)};
    const auto [sum, normed] = residual_norm_reference(x, y, bias, gamma, beta, kEps, scale, factor);
    return {sum, normed};
  }
};

/// The types of x, of y and of the parameters.
struct NormTypes {
  at::ScalarType x, y, parameter;
};

/// From a plain layer norm to a branch with bias, LayerScale and stochastic depth (two samples), each
/// [samples, rows, dim].
inline std::vector<NormProblem> norm_problems(std::int64_t rows, std::int64_t dim, const NormTypes& types) {
  at::manual_seed(7);
  const auto leaf = [](at::IntArrayRef shape, at::ScalarType type, double offset) {
    return (at::randn(shape, at::kDouble) + offset).to(type).requires_grad_(true);
  };
  const auto x = [&] { return leaf({2, rows, dim}, types.x, 0.5); };
  const auto y = [&] { return leaf({2, rows, dim}, types.y, -0.3); };
  const auto vector = [&] { return leaf({dim}, types.parameter, 1); };
  const auto factor = at::tensor({1.25, 0.5}, at::kDouble).to(types.parameter);
  return {{"layer norm", x(), {}, {}, vector(), vector(), {}, {}},
          {"sum", x(), y(), {}, vector(), vector(), {}, {}},
          {"bias", x(), y(), vector(), vector(), vector(), {}, {}},
          {"scale", x(), y(), {}, vector(), vector(), vector(), {}},
          {"bias, scale, factor", x(), y(), vector(), vector(), vector(), vector(), factor},
          {"factor", x(), y(), vector(), vector(), vector(), {}, factor}};
}

}  // namespace stoa::ops::test
