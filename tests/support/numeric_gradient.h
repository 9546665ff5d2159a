#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <functional>
#include <vector>

namespace stoa::test {

/// Largest difference between autograd's gradients of a scalar `loss` and central differences, over every
/// element of `inputs` (contiguous double leaves that require gradients), relative to the largest gradient
/// or 1. `loss` must be a pure function of the inputs: seed the generators inside it.
inline double gradient_error(const std::function<at::Tensor()>& loss, const std::vector<at::Tensor>& inputs,
                             double step = 1e-5) {
  const auto gradients = torch::autograd::grad({loss()}, inputs);
  const at::NoGradGuard no_grad;
  double error = 0;
  double scale = 1;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const auto gradient = gradients[i].contiguous();
    for (std::int64_t j = 0; j < inputs[i].numel(); ++j) {
      double& value = inputs[i].data_ptr<double>()[j];
      const double before = value;
      value = before + step;
      const double above = loss().item<double>();
      value = before - step;
      const double below = loss().item<double>();
      value = before;
      const double exact = gradient.data_ptr<double>()[j];
      error = std::max(error, std::abs((above - below) / (2 * step) - exact));
      scale = std::max(scale, std::abs(exact));
    }
  }
  return error / scale;
}

}  // namespace stoa::test
