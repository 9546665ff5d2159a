#pragma once

#include <cstdint>
#include <string>

#include "stoa/base/options.h"
#include "stoa/nn/moe/router.h"
#include "stoa/ops/mixture.h"
#include "stoa/tasks/text_model.h"

namespace stoa::text_transformer {

/// Sets of defaults, each a published family. A key written in the recipe overrides its preset.
enum class Preset {
  kBert,        ///< post-norm, erf GELU as in today's ports (bamboo.md 2.12)
  kMegatron,    ///< pre-norm, no norm of the embeddings (sequence-parallelism.md 3)
  kAlbert,      ///< factorised embedding, one layer applied again and again (widenet.md 2.5)
  kDistilBert,  ///< BERT of half the depth, without segments
  kGpt2,        ///< pre-norm; each token sees those before it, whatever is asked for
  kWideNet,     ///< ALBERT's skeleton with a shared mixture of experts and layer norms of their own
};
enum class NormPlace {
  kPost,  ///< x <- LN(x + f(x))
  kPre,   ///< x <- x + f(LN(x)), and a norm at the end
};

/// Which of Linformer's projections are one and the same (arXiv 2006.04768, section 4). All heads of a layer
/// share theirs.
enum class LinformerSharing {
  kHeads,       ///< each layer has an E for keys and an F for values
  kKeysValues,  ///< each layer has one for both
  kLayers,      ///< one for both in all layers
};

/// A transformer on text whose blocks share as much or as little as is wanted.
struct TextTransformerOptions {
  Preset preset = Preset::kBert;
  std::string weights;          ///< folder with config.json and safetensors; sets the shape
  std::int64_t vocabulary = 0;  ///< rows of the embedding; 0 as many as the tokenizer has tokens
  std::int64_t dim = 768;
  std::int64_t depth = 12;
  std::int64_t heads = 12;
  std::int64_t mlp_dim = 3072;
  std::int64_t embedding_dim = 0;  ///< below dim: embeddings of this width and a product to dim; 0 is dim
  std::int64_t positions = 512;
  std::int64_t segments = 2;  ///< 0 has no segment embedding
  NormPlace norm = NormPlace::kPost;
  bool embedding_norm = true;
  double norm_eps = 1e-12;
  ops::Activation activation = ops::Activation::kGeluErf;
  std::int64_t linformer = 0;  ///< rows that keys and values are projected to; 0: full attention
  LinformerSharing linformer_sharing = LinformerSharing::kHeads;
  bool share_attention = false, share_mlp = false, share_norms = false;
  std::int64_t mixture_layers = 0;  ///< how many of the last layers have a mixture; -1 all
  std::int64_t expert_dim = 0;      ///< hidden width of each expert; 0 takes mlp_dim
  nn::RouterOptions router;
  double dropout = 0.1;                             ///< of embeddings and of both branches
  double attention_dropout = 0.1;                   ///< of attention weights
  double classifier_dropout = 0.1;                  ///< in front of the scores of classes; GPT-2's have none
  ops::Activation pooler = ops::Activation::kNone;  ///< kNone is tanh
  double init_std = 0.02;
  bool scaled_init = false;  ///< output products of both branches at init_std / sqrt(2 depth)
  bool recompute = false;    ///< layers run again in the backward pass: less memory, more time

  void visit(FieldVisitor& v);
  /// Throws ConfigError naming the field and a value that would do.
  void validate(const TextModelInput& input) const;

  std::int64_t embedding_width() const { return embedding_dim > 0 ? embedding_dim : dim; }
  std::int64_t expert_width() const { return expert_dim > 0 ? expert_dim : mlp_dim; }
  /// Whether a token sees only itself and those before it.
  bool causal(TextHead head) const { return head == TextHead::kCausal || preset == Preset::kGpt2; }
  bool has_mixture(std::int64_t layer) const { return mixture_layers < 0 || layer >= depth - mixture_layers; }

 private:
  void apply_preset();
  void check_linformer(TextHead head) const;
};

}  // namespace stoa::text_transformer
