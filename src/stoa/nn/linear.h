#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

namespace stoa::nn {

/// y = x W^T + b with weight [out, in] and bias [out], named and laid out as PyTorch's. Glorot-uniform
/// weight, zero bias.
class LinearImpl : public torch::nn::Module {
 public:
  LinearImpl(std::int64_t in, std::int64_t out);
  /// x [..., in] -> [..., out]
  at::Tensor forward(const at::Tensor& x);

  at::Tensor weight, bias;
};
TORCH_MODULE(Linear);

}  // namespace stoa::nn
