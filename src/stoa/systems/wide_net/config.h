#pragma once

#include <cstdint>

#include "stoa/base/options.h"
#include "stoa/nn/attention.h"
#include "stoa/nn/moe/router.h"
#include "stoa/ops/mixture.h"
#include "stoa/tasks/image_classification.h"

namespace stoa::wide_net {

/// Sets of defaults. A key written in the recipe overrides its preset.
enum class Preset {
  kModern,  ///< the paper's layer in today's form: no class slot, no second GELU, dropless evaluation
  kPaper,   ///< as published: zero class slot, mean pooling, representation layer, dropout 0.1
  kCode,    ///< as the original program runs: kPaper with a second GELU, cap - 1 slots, token order, drops in
            ///< evaluation
};
enum class Pooling { kMean, kToken, kMap };
enum class ClassSlot { kNone, kZero };
enum class GroupOrder { kBlocks, kCycle };

/// A vision transformer whose blocks share as much or as little as is wanted (widenet.md 2.1, 2.3): WideNet
/// shares attention and mixture and keeps layer norms apart; ViT, ViT-MoE, shared dense and shared-norm
/// models are other settings.
struct WideNetOptions {
  Preset preset = Preset::kModern;
  std::int64_t patch = 16;
  std::int64_t dim = 768;
  std::int64_t depth = 12;
  std::int64_t heads = 12;
  std::int64_t mlp_dim = 3072;       ///< hidden width of dense perceptrons
  std::int64_t expert_dim = 0;       ///< hidden width of each expert; 0 takes mlp_dim
  std::int64_t mixture_layers = -1;  ///< how many of the last layers have a mixture; -1 all, 0 none
  bool share_attention = true;
  bool share_mlp = true;  ///< perceptrons and mixtures
  bool share_norms = false;
  std::int64_t groups = 1;  ///< with sharing: groups of layers, each with attention and perceptron of its own
  GroupOrder group_order = GroupOrder::kBlocks;  ///< AABB or ABAB
  ClassSlot class_slot = ClassSlot::kNone;
  Pooling pooling = Pooling::kMean;
  bool representation = false;   ///< Dense d -> d and tanh before the head
  double dropout = 0;            ///< after positions, attention and both perceptron layers
  double attention_dropout = 0;  ///< on attention weights
  double drop_path = 0;          ///< stochastic depth of the last layer, rising linearly from 0
  double layer_scale = 0;        ///< initial per-layer scale of both branches; 0 has none
  bool recompute = false;        ///< layers run again in the backward pass: less memory, more time
  nn::AttentionInit attention_init = nn::AttentionInit::kGlorot;
  ops::Activation activation = ops::Activation::kGeluTanh;
  ops::Activation ffn_output_activation = ops::Activation::kNone;
  ops::MixtureBackend backend = ops::MixtureBackend::kSorted;
  nn::RouterOptions router;

  void visit(FieldVisitor& v);
  /// Throws ConfigError naming the field and a value that would do.
  void validate(const ImageClassifierInput& input) const;

  std::int64_t expert_width() const { return expert_dim > 0 ? expert_dim : mlp_dim; }
  /// Whether layer `layer` has a mixture in place of a dense perceptron.
  bool has_mixture(std::int64_t layer) const { return mixture_layers < 0 || layer >= depth - mixture_layers; }
  /// Group of a layer when its blocks are shared.
  std::int64_t group_of(std::int64_t layer) const {
    return group_order == GroupOrder::kBlocks ? layer / (depth / groups) : layer % groups;
  }

 private:
  void apply_preset();
};

}  // namespace stoa::wide_net
