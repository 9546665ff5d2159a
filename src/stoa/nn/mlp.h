#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "stoa/nn/linear.h"
#include "stoa/ops/mixture.h"

namespace stoa::nn {

struct MlpOptions {
  std::int64_t dim = 768;
  std::int64_t hidden = 3072;
  double dropout = 0;  ///< behind both activations
  ops::Activation activation = ops::Activation::kGeluTanh;
  ops::Activation output_activation =
      ops::Activation::kNone;  ///< GELU in WideNet's original code (widenet.md 2.1)
};

/// Two-layer perceptron of a transformer block: act_out(act(x W1 + b1) W2 + b2). Glorot-uniform weights,
/// biases N(0, 1e-6^2).
class MlpImpl : public torch::nn::Module {
 public:
  explicit MlpImpl(const MlpOptions& options);
  /// x [..., dim] -> the same shape
  at::Tensor forward(const at::Tensor& x);

  Linear in{nullptr}, out{nullptr};

 private:
  MlpOptions options_;
};
TORCH_MODULE(Mlp);

}  // namespace stoa::nn
