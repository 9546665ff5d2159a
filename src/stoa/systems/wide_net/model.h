#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "stoa/nn/attention.h"
#include "stoa/nn/layer_split.h"
#include "stoa/nn/layer_weights.h"
#include "stoa/nn/linear.h"
#include "stoa/nn/mlp.h"
#include "stoa/nn/moe/mixture.h"
#include "stoa/nn/moe/recompute_layer.h"
#include "stoa/nn/patch_embedding.h"
#include "stoa/nn/tying.h"
#include "stoa/ops/residual_norm.h"
#include "stoa/systems/wide_net/config.h"
#include "stoa/tasks/image_classification.h"

namespace stoa::wide_net {

/// What happened in a forward pass, layer by layer; for tests and studies.
struct WideNetTrace {
  at::Tensor embedded;                      ///< [b, T, d] after positions
  std::vector<at::Tensor> after_attention;  ///< x + Att(LN1 x), by layer
  std::vector<at::Tensor> ffn_input;        ///< LN2 of it
  std::vector<at::Tensor> output;           ///< of the layer
  std::vector<nn::Routing> routing;         ///< of each layer that has a mixture
  at::Tensor final_norm, pooled, representation, logits;
};

/// WideNet and its baselines (arXiv 2107.11817): x <- x + Att(LN1_i(x)); x <- x + FF(LN2_i(x)), i = 1..D,
/// where Att and FF may be the same modules for all i. Shared modules are registered once, so that counts,
/// optimisers and checkpoints see them once.
class WideNetImpl : public ImageClassifier,
                    public nn::AdaptsWeights,
                    public nn::SplitsLayers,
                    public nn::BringsWeights {
 public:
  WideNetImpl(const WideNetOptions& options, const ImageClassifierInput& input);

  ImageClassifierOutput classify(const at::Tensor& images) override;
  /// The same, keeping every intermediate in `trace`.
  ImageClassifierOutput classify(const at::Tensor& images, WideNetTrace* trace);
  nn::ModelDescription describe() const override;
  std::vector<Exhibit> exhibits(const std::vector<nn::NamedTensor>& statistics) const override;
  /// Takes the weights of a model of the same widths with other sharing, depth or groups (widenet.md 7, last
  /// check; 9).
  nn::Weights adapt(nn::Weights weights, const nn::AdaptOptions& options) const override;
  std::int64_t layers() const override { return options_.depth; }
  std::map<std::string, std::vector<std::int64_t>> users() const override;
  void require_stages(std::int64_t stages) const override;
  void use_layers(nn::LayerRange own, std::shared_ptr<const nn::LayerExchange> exchange) override {
    own_ = own;
    stages_ = std::move(exchange);
  }
  std::map<std::string, std::int64_t> layer_parameters() const override;
  void use_weights(std::shared_ptr<const nn::LayerWeights> weights) override {
    brought_ = std::move(weights);
  }

  const WideNetOptions& options() const { return options_; }

  nn::PatchEmbedding patch{nullptr};
  at::Tensor position;              ///< [T, d]
  torch::nn::ModuleList attention;  ///< one, one a group, or one a layer
  torch::nn::ModuleList mlp;        ///< dense perceptrons
  torch::nn::ModuleList mixture;
  torch::nn::ModuleList norm1, norm2;      ///< one or D
  std::vector<at::Tensor> scale1, scale2;  ///< layer scale [d], by layer; empty without
  torch::nn::LayerNorm final_norm{nullptr};
  nn::Attention map_attention{nullptr};  ///< pooling = map only
  nn::Linear representation{nullptr};
  nn::Linear head{nullptr};

 private:
  /// Which module of each list a layer uses; -1 for none.
  struct Layer {
    std::int64_t attention, mlp, mixture, norm;
  };
  /// What one layer leaves to the next, which may be another process's.
  struct Handed {
    at::Tensor x, normed;                      ///< the sum, and the next layer's norm of it
    std::vector<nn::RoutingStatistics> calls;  ///< of all mixtures so far
    at::Tensor norms;  ///< [2, layers, d], weights of the norms of stages before; undefined for none
  };
  void build_layers();
  std::vector<std::vector<std::int64_t>> served(std::int64_t Layer::*module) const;
  at::Tensor drop(const at::Tensor& x) const;
  at::Tensor embed(const at::Tensor& images);
  /// Stochastic depth: of each sample 0 or 1 / keep; undefined for a layer that is never skipped.
  at::Tensor path_factor(const at::Tensor& x, std::int64_t layer) const;
  at::Tensor pool(const at::Tensor& x);
  /// The statistics that a forward pass ends with, and the losses of its mixtures.
  nn::SideOutputs side_outputs(const Handed& last) const;
  const torch::nn::LayerNormImpl& norm_of(const torch::nn::ModuleList& norms, std::int64_t layer) const;
  nn::LayerPass pass_layer(std::int64_t i, const at::Tensor& x, const at::Tensor& normed,
                           WideNetTrace* trace);
  /// x + y, y being a branch's answer on its way into the residual (layer scale, stochastic depth), and the
  /// norm of it; without `norm`, which is then the next stage's, x + y alone.
  ops::ResidualNorm add(const at::Tensor& x, const at::Tensor& y, const std::vector<at::Tensor>& scales,
                        std::int64_t layer, const torch::nn::LayerNormImpl* norm);
  /// Calls for dropout and for a router's noise of a forward pass in front of a layer.
  std::int64_t dropout_calls(std::int64_t layer) const;
  /// How often stochastic depth skips a layer.
  double path_rate(std::int64_t layer) const;
  /// The weights of all norms up to the last one here [2, layers, d].
  at::Tensor all_norms(const Handed& handed) const;
  /// What the stage before left of so many samples.
  Handed receive(std::int64_t samples) const;
  /// Hands on what the next stage needs, and what all stages so far say of themselves: losses of mixtures and
  /// statistics are made by the last one, as in one process.
  at::Tensor send(const Handed& handed) const;

  WideNetOptions options_;
  ImageClassifierInput input_;
  std::int64_t tokens_ = 0;
  std::vector<Layer> layers_;
  nn::LayerRange own_{};                             ///< the layers that are here
  std::shared_ptr<const nn::LayerExchange> stages_;  ///< null where all of them are
  std::shared_ptr<const nn::LayerWeights> brought_;  ///< null where all weights are here
};
TORCH_MODULE(WideNet);

}  // namespace stoa::wide_net
