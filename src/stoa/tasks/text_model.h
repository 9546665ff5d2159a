#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "stoa/nn/attention.h"
#include "stoa/nn/description.h"
#include "stoa/nn/layer_split.h"
#include "stoa/nn/outputs.h"
#include "stoa/nn/packed_tokens.h"
#include "stoa/nn/weight_split.h"
#include "stoa/train/exhibit.h"

namespace stoa {

/// What stands on top of a text model's hidden states.
enum class TextHead {
  kMasked,   ///< which token was here, for masked places
  kCausal,   ///< which token comes next; attention then looks back only
  kClasses,  ///< scores for a whole sequence; one class is a number
  kSpans,    ///< scores for being the first and the last token of an answer
};

/// What a text model is built for.
struct TextModelInput {
  std::int64_t vocabulary = 30522;
  std::int64_t length = 512;  ///< tokens of the longest sequence
  TextHead head = TextHead::kMasked;
  std::int64_t classes = 2;  ///< with kClasses
  bool sentence_pairs =
      false;  ///< with kMasked: a second head tells of the two segments (next sentence, order)
};

struct TextOutput {
  at::Tensor hidden;  ///< [tokens, dim], of all sequences end to end
  nn::SideOutputs side;
  /// Where the layers are split over processes: how the others are reached, and in place of `hidden` and
  /// `side`, where the last layers are elsewhere, a zero whose backward pass goes on from theirs.
  at::Tensor link = {};
  std::shared_ptr<const nn::LayerExchange> stages = nullptr;
};

/// The last product of a language model, left to be made with its loss: scores = rows weight^T + bias.
struct LanguageScores {
  at::Tensor rows;    ///< [rows, width]
  at::Tensor weight;  ///< [vocabulary, width]
  at::Tensor bias;    ///< [vocabulary], undefined for none
  /// Where weight and bias are this process's shares of them (nn::split_cross_entropy): of how many tokens,
  /// and how the others are reached. Else null.
  std::int64_t vocabulary = 0;
  std::shared_ptr<const nn::WeightExchange> exchange = nullptr;
};

/// What a causal model keeps of the tokens so far; the model knows what is in it.
struct TextCache {
  std::vector<nn::AttentionCache> layers;
  std::int64_t tokens = 0;    ///< so far
  std::int64_t capacity = 0;  ///< the most tokens
};

/// What text tasks need of a model. Systems derive from it; it is all that the tasks ever see of them.
class TextModel : public torch::nn::Module {
 public:
  virtual TextOutput forward(const nn::PackedTokens& tokens) = 0;
  /// kMasked, kCausal: scores over the vocabulary for rows [rows, dim] of the hidden states.
  virtual LanguageScores language_scores(const at::Tensor& rows) = 0;
  /// kMasked with sentence_pairs: [sequences, 2]
  virtual at::Tensor pair_scores(const at::Tensor& hidden, const nn::PackedTokens& tokens) = 0;
  /// kClasses: [sequences, classes]
  virtual at::Tensor class_scores(const at::Tensor& hidden, const nn::PackedTokens& tokens) = 0;
  /// kSpans: [tokens, 2], for the first and the last token of an answer
  virtual at::Tensor span_scores(const at::Tensor& hidden) = 0;
  /// kCausal: tokens ids [sequences, new tokens] that follow those of the cache, which takes them in (an
  /// empty one is set up, for `capacity` tokens). Returns the hidden states of the last ones [sequences,
  /// dim].
  virtual at::Tensor continued(const at::Tensor& ids, TextCache& cache);
  virtual nn::ModelDescription describe() const = 0;
  /// Whether forward() takes tokens of which other processes have a part (PackedTokens::exchange).
  virtual bool splits_sequences() const { return false; }
  /// Reads the pre-trained weights that the model's options name, if they do: where a new run begins. Heads
  /// that are not among them stay as drawn. Throws DataError naming the tensor that is missing or misshapen.
  virtual void load_pretrained() {}
  /// Writes config.json and model.safetensors in Hugging Face's form into an existing folder. Throws
  /// ConfigError where there is no such form for this model.
  virtual void save_pretrained(const std::filesystem::path& folder) const;
  /// Pictures of what the model did, from its statistics averaged over the evaluation data.
  virtual std::vector<Exhibit> exhibits(const std::vector<nn::NamedTensor>& statistics) const {
    (void)statistics;
    return {};
  }
};

}  // namespace stoa
