#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "stoa/nn/parameters.h"
#include "stoa/optim/optimizer.h"

namespace stoa::test {

/// A leaf that requires gradients, with a copy of the value.
inline nn::NamedParameter parameter(const std::string& name, const at::Tensor& value,
                                    std::int64_t slices = 1) {
  return {name, value.detach().clone().set_requires_grad(true), slices};
}

inline void set_gradient(const nn::NamedParameter& parameter, const at::Tensor& gradient) {
  parameter.tensor.mutable_grad() = gradient.to(parameter.tensor.scalar_type());
}

/// A vector of doubles.
inline at::Tensor doubles(std::vector<double> values) {
  return at::tensor(values, at::kDouble);
}

/// Weights after each step of an optimiser over one parameter.
inline std::vector<at::Tensor> trajectory(const optim::OptimizerOptions& options, const at::Tensor& start,
                                          const std::vector<at::Tensor>& gradients) {
  const auto w = parameter("w", start);
  const auto optimizer = optim::make_optimizer({w}, options);
  std::vector<at::Tensor> weights;
  for (const auto& gradient : gradients) {
    set_gradient(w, gradient);
    optimizer->step(options.lr);
    weights.push_back(w.tensor.detach().clone());
  }
  return weights;
}

/// Largest absolute difference of two tensors, in double.
inline double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.detach().to(at::kDouble) - b.detach().to(at::kDouble)).abs().max().item<double>();
}

}  // namespace stoa::test
