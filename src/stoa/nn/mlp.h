#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "stoa/nn/linear.h"
#include "stoa/nn/weight_split.h"
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
/// biases N(0, 1e-6^2). Split weights are those of some of the hidden units.
class MlpImpl : public torch::nn::Module, public SplitsWeights {
 public:
  explicit MlpImpl(const MlpOptions& options);
  /// x [..., dim] -> the same shape
  at::Tensor forward(const at::Tensor& x);
  std::map<std::string, WeightCut> cuts() const override {
    return {{"in.weight", {0, 1}}, {"in.bias", {0, 1}}, {"out.weight", {1, 1}}};
  }
  void require_parts(std::int64_t parts) const override;
  void use_exchange(std::shared_ptr<const WeightExchange> exchange) override {
    exchange_ = std::move(exchange);
  }

  Linear in{nullptr}, out{nullptr};

 private:
  at::Tensor forward_split(const at::Tensor& x, double dropout);

  MlpOptions options_;
  std::shared_ptr<const WeightExchange> exchange_;  ///< null where all hidden units are here
};
TORCH_MODULE(Mlp);

}  // namespace stoa::nn
