#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "stoa/nn/linear.h"
#include "stoa/nn/parameters.h"

namespace stoa::cow_clip {

/// The factorisation machine's second order, the sum over pairs of fields of e_f . e_g, as
/// 0.5 sum_d ((sum_f e_fd)^2 - sum_f e_fd^2): embeddings [batch, fields, dim] -> [batch].
at::Tensor fm_term(const at::Tensor& embeddings);

/// Rows' products with one vector, [batch, n] and [n] -> [batch], in the vector's type whatever autocast
/// says: logits are not rounded to bf16.
at::Tensor dot_rows(const at::Tensor& x, const at::Tensor& w);

/// A perceptron all of whose layers have a ReLU: x [batch, in] -> [batch, hidden.back()].
class TowerImpl : public torch::nn::Module {
 public:
  TowerImpl(std::int64_t in, const std::vector<std::int64_t>& hidden, double dropout);
  at::Tensor forward(const at::Tensor& x);
  /// Multiply-adds of one row.
  std::int64_t macs() const;
  /// Inputs and results of its layers, for one row.
  std::int64_t activations() const;

  std::vector<nn::Linear> layers;

 private:
  double dropout_;
};
TORCH_MODULE(Tower);

/// What is crossed with the input x_0 [batch, d], layer by layer, to x_L [batch, d].
class CrossNetwork : public torch::nn::Module {
 public:
  virtual at::Tensor forward(const at::Tensor& x0) = 0;
  /// x_L . k for k [d], without x_L where that is faster: [batch].
  virtual at::Tensor project(const at::Tensor& x0, const at::Tensor& k) { return dot_rows(forward(x0), k); }
  /// Square sum of the kernels that are penalised: no gates, no biases.
  virtual at::Tensor squared_kernels() const = 0;
  virtual std::int64_t macs() const = 0;         ///< of one row
  virtual std::int64_t activations() const = 0;  ///< kept for the backward pass of one row
};

/// DCN: x_{l+1} = x_0 (x_l . w_l) + b_l + x_l. Every x_l is a_l x_0 + c_l with a number a_l for each row and
/// a vector c_l = b_0 + ... + b_{l-1} for all, so that all layers need one product, of x_0 with the kernels.
class VectorCrossImpl : public CrossNetwork, public nn::HasSlices {
 public:
  VectorCrossImpl(std::int64_t dim, std::int64_t count);
  at::Tensor forward(const at::Tensor& x0) override;
  at::Tensor project(const at::Tensor& x0, const at::Tensor& k) override;
  at::Tensor squared_kernels() const override;
  std::int64_t macs() const override { return 2 * weight.numel(); }
  std::int64_t activations() const override { return weight.size(1) + 3 * weight.size(0); }
  std::map<std::string, std::int64_t> slices() const override;

  at::Tensor weight, bias;  ///< [layers, d] both

 private:
  at::Tensor factor(const at::Tensor& products) const;
};
TORCH_MODULE(VectorCross);

/// DCN v2 with full matrices: x_{l+1} = x_0 * (W_l x_l + b_l) + x_l.
class MatrixCrossImpl : public CrossNetwork {
 public:
  MatrixCrossImpl(std::int64_t dim, std::int64_t count);
  at::Tensor forward(const at::Tensor& x0) override;
  at::Tensor squared_kernels() const override;
  std::int64_t macs() const override;
  std::int64_t activations() const override;

  std::vector<nn::Linear> layers;
};
TORCH_MODULE(MatrixCross);

/// Kernels of one layer of a MixtureCross. Expert i maps x to U_i tanh(C_i tanh(V_i x)).
class MixtureCrossLayerImpl : public torch::nn::Module, public nn::HasSlices {
 public:
  MixtureCrossLayerImpl(std::int64_t dim, std::int64_t experts, std::int64_t rank);
  std::map<std::string, std::int64_t> slices() const override;

  at::Tensor v;     ///< [experts, rank, d]
  at::Tensor c;     ///< [experts, rank (out), rank (in)]
  at::Tensor u;     ///< [d, experts, rank]
  at::Tensor bias;  ///< [d], of all experts
};
TORCH_MODULE(MixtureCrossLayer);

/// DCN-Mix: x_{l+1} = x_0 * (sum_i p_i U_i tanh(C_i tanh(V_i x_l)) + b_l) + x_l with p = softmax_i(a_i .
/// x_l). One set of gates a_i serves all layers, as in the original program.
class MixtureCrossImpl : public CrossNetwork {
 public:
  MixtureCrossImpl(std::int64_t dim, std::int64_t count, std::int64_t experts, std::int64_t rank);
  at::Tensor forward(const at::Tensor& x0) override;
  at::Tensor squared_kernels() const override;
  std::int64_t macs() const override;
  std::int64_t activations() const override;

  at::Tensor gate;  ///< [experts, d]
  std::vector<MixtureCrossLayer> layers;

 private:
  at::Tensor answer(const MixtureCrossLayerImpl& layer, const at::Tensor& x) const;
};
TORCH_MODULE(MixtureCross);

/// Weighs the inputs of a perceptron by what the whole row is like: x * 2 sigmoid(W_2 relu(W_1 x + b_1) +
/// b_2).
class FeatureGateImpl : public torch::nn::Module {
 public:
  FeatureGateImpl(std::int64_t dim, std::int64_t hidden);
  at::Tensor forward(const at::Tensor& x);

  nn::Linear in{nullptr}, out{nullptr};
};
TORCH_MODULE(FeatureGate);

/// Two perceptrons on inputs gated differently, and w_1 . y + w_2 . z + sum_h y_h^T B_h z_h over blocks h of
/// their results y and z (after Mao et al., FinalMLP, 2023; both gates see the whole row): x [batch, d] ->
/// [batch].
class TwoStreamImpl : public torch::nn::Module, public nn::HasSlices {
 public:
  TwoStreamImpl(std::int64_t dim, const std::vector<std::int64_t>& hidden_1,
                const std::vector<std::int64_t>& hidden_2, std::int64_t gate_hidden, std::int64_t heads,
                double dropout);
  at::Tensor forward(const at::Tensor& x);
  std::map<std::string, std::int64_t> slices() const override;

  FeatureGate gate_1{nullptr}, gate_2{nullptr};
  Tower stream_1{nullptr}, stream_2{nullptr};
  at::Tensor weight_1, weight_2;  ///< [width 1], [width 2]
  at::Tensor bilinear;            ///< [heads, width 1 / heads, width 2 / heads]
};
TORCH_MODULE(TwoStream);

}  // namespace stoa::cow_clip
