#pragma once

#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
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
#include "stoa/nn/weight_split.h"
#include "stoa/systems/text_transformer/config.h"
#include "stoa/tasks/text_model.h"

namespace stoa::text_transformer {

/// Linformer's projections of a layer (dist/sequence/linformer.h), by the place of a token in its sequence.
class ProjectionsImpl : public torch::nn::Module {
 public:
  /// `shared`: keys and values have one for both.
  ProjectionsImpl(std::int64_t rows, std::int64_t positions, bool shared);

  at::Tensor e;  ///< [rows, positions], of keys
  at::Tensor f;  ///< the same of values; undefined where it is e
};
TORCH_MODULE(Projections);

/// BERT and its kin: embeddings of tokens, positions and segments; blocks of attention and a perceptron or a
/// mixture, which may share their modules; a head for what is asked. Shared modules are registered once, so
/// that counts, optimisers and checkpoints see them once. Tokens are packed: no padding is computed.
class TextTransformerImpl : public TextModel,
                            public nn::SplitsWeights,
                            public nn::SplitsLayers,
                            public nn::BringsWeights {
 public:
  TextTransformerImpl(const TextTransformerOptions& options, const TextModelInput& input);

  TextOutput forward(const nn::PackedTokens& tokens) override;
  /// The same, with the embeddings and the hidden states behind each layer appended to `layers`.
  TextOutput forward(const nn::PackedTokens& tokens, std::vector<at::Tensor>* layers);
  /// The pooled first token of each sequence [sequences, dim].
  at::Tensor pooled(const at::Tensor& hidden, const nn::PackedTokens& tokens);
  LanguageScores language_scores(const at::Tensor& rows) override;
  at::Tensor pair_scores(const at::Tensor& hidden, const nn::PackedTokens& tokens) override;
  /// Of the pooled first token. Of a causal model: score h without bias, h the last token of each sequence,
  /// the only one that has seen all others (GPT2ForSequenceClassification of Python's transformers). GPT-2's
  /// vocabulary has one mark, which sequence_marks() puts in front, between two sentences and behind: h is
  /// always that of the mark behind.
  at::Tensor class_scores(const at::Tensor& hidden, const nn::PackedTokens& tokens) override;
  at::Tensor span_scores(const at::Tensor& hidden) override;
  at::Tensor continued(const at::Tensor& ids, TextCache& cache) override;
  nn::ModelDescription describe() const override;
  bool splits_sequences() const override { return mixture->is_empty(); }  // a mixture routes whole groups
  std::map<std::string, nn::WeightCut> cuts() const override;
  void require_parts(std::int64_t parts) const override;
  void use_exchange(std::shared_ptr<const nn::WeightExchange> exchange) override {
    exchange_ = std::move(exchange);
  }
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
  std::vector<Exhibit> exhibits(const std::vector<nn::NamedTensor>& statistics) const override;
  void load_pretrained() override;
  void save_pretrained(const std::filesystem::path& folder) const override;

  const TextTransformerOptions& options() const { return options_; }
  const TextModelInput& input() const { return input_; }

  at::Tensor word;      ///< [vocabulary, embedding width]
  at::Tensor position;  ///< [positions, embedding width]
  at::Tensor segment;   ///< [segments, embedding width]; undefined without
  torch::nn::LayerNorm embedding_norm{nullptr};
  nn::Linear projection{nullptr};     ///< embedding width -> dim
  torch::nn::ModuleList attention;    ///< one, or one a layer
  torch::nn::ModuleList projections;  ///< the same; empty but for Linformer
  torch::nn::ModuleList mlp;
  torch::nn::ModuleList mixture;
  torch::nn::ModuleList norm1, norm2;  ///< post: behind attention and perceptron; pre: in front of them
  torch::nn::LayerNorm final_norm{nullptr};
  nn::Linear pooler{nullptr};
  nn::Linear mask_dense{nullptr};  ///< dim -> embedding width
  torch::nn::LayerNorm mask_norm{nullptr};
  at::Tensor mask_bias;  ///< [vocabulary]
  nn::Linear pair_head{nullptr}, class_head{nullptr}, span_head{nullptr};
  at::Tensor score;  ///< [classes, dim], the class head of a causal model: no bias

 private:
  /// Which module of each list a layer uses; -1 for none.
  struct Layer {
    std::int64_t attention, projections, mlp, mixture, norm;
  };
  /// Attention of a layer over whatever there is: packed sequences, or new tokens and a cache.
  using Attend = std::function<at::Tensor(std::int64_t layer, const at::Tensor& normed)>;

  void build();
  void build_layers();
  void build_heads();
  void draw();
  /// Keys name the rows for dropout (ops::dropout).
  at::Tensor embed(const at::Tensor& ids, const at::Tensor& segments, const at::Tensor& positions,
                   const at::Tensor& keys);
  at::Tensor drop(const at::Tensor& x, double rate, const at::Tensor& keys = {}) const;
  const torch::nn::LayerNormImpl& norm_of(const torch::nn::ModuleList& norms, std::int64_t layer) const;
  nn::AttentionImpl& attention_of(std::int64_t layer) const;
  /// The tokens as a layer's attention sees them.
  nn::PackedTokens seen_by(std::int64_t layer, const nn::PackedTokens& tokens) const;
  /// What a layer reads, from the embeddings or the sum that the layer before left.
  nn::LayerPass begin(const at::Tensor& x, std::int64_t layer) const;
  /// Dropout calls, and calls for a router's noise, of a forward pass in front of a layer.
  std::int64_t dropout_calls(std::int64_t layer) const;
  /// What the stage before left, and adds what its routers and those before said to `calls`.
  at::Tensor receive(std::int64_t tokens, std::vector<nn::RoutingStatistics>& calls) const;
  /// Hands on x and what all routers so far said: the losses of mixtures are made by the last stage, as in
  /// one process.
  at::Tensor send(const at::Tensor& x, const std::vector<nn::RoutingStatistics>& calls) const;
  nn::LayerPass pass_layer(std::int64_t i, const at::Tensor& x, const at::Tensor& normed,
                           const Attend& attend, const at::Tensor& keys);

  TextTransformerOptions options_;
  TextModelInput input_;
  std::vector<Layer> layers_;
  nn::LayerRange own_{};                                ///< the layers that are here
  std::shared_ptr<const nn::LayerExchange> stages_;     ///< null where all of them are
  std::shared_ptr<const nn::WeightExchange> exchange_;  ///< null where the whole vocabulary is here
  std::shared_ptr<const nn::LayerWeights> brought_;     ///< null where all weights are here
};
TORCH_MODULE(TextTransformer);

}  // namespace stoa::text_transformer
