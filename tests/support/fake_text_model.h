#pragma once

#include <ATen/ATen.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>

#include <memory>

#include "stoa/base/errors.h"
#include "stoa/base/options.h"
#include "stoa/nn/parameters.h"
#include "stoa/tasks/text_model.h"

namespace stoa::test {

struct FakeTextOptions {
  std::int64_t dim = 8;
  std::string weights;          ///< where a tokenizer may be looked for
  std::int64_t vocabulary = 0;  ///< where only sizes are asked for

  void visit(FieldVisitor& v) {
    v.field("dim", dim, "width");
    v.field("weights", weights, "pre-trained");
    v.field("vocabulary", vocabulary, "tokens");
  }
  void validate(const TextModelInput& input) const {
    if (dim < 1) throw ConfigError("`model.dim` must be at least 1");
    if (input.vocabulary < 1 || input.length < 1) throw ConfigError("`model` has nothing to read");
  }
};

/// A bag of words: a token's hidden state is its embedding plus that of its segment; a class sees the mean, a
/// span its own token. In fp64, so that results do not depend on how batches are cut.
class FakeTextModel : public TextModel {
 public:
  FakeTextModel(const FakeTextOptions& options, const TextModelInput& input) : input(input) {
    words_ = register_module("words", torch::nn::Embedding(input.vocabulary, options.dim));
    segments_ = register_module("segments", torch::nn::Embedding(2, options.dim));
    const auto outputs = input.head == TextHead::kClasses ? input.classes : 2;
    head_ = register_module("head", torch::nn::Linear(options.dim, outputs));
    to(at::kDouble);
  }

  TextOutput forward(const nn::PackedTokens& tokens) override {
    ++passes;
    auto hidden = words_->forward(tokens.ids) + segments_->forward(tokens.segments);
    return {hidden, {{}, {{"width", hidden.detach().abs().mean()}}}};
  }
  LanguageScores language_scores(const at::Tensor&) override { throw Error("not asked for"); }
  at::Tensor pair_scores(const at::Tensor&, const nn::PackedTokens&) override {
    throw Error("not asked for");
  }
  at::Tensor class_scores(const at::Tensor& hidden, const nn::PackedTokens& tokens) override {
    return head_->forward(tokens.mean(hidden));
  }
  at::Tensor span_scores(const at::Tensor& hidden) override { return head_->forward(hidden); }
  void load_pretrained() override { ++pretrained; }
  nn::ModelDescription describe() const override {
    return {{{"all", nn::count_parameters(*this), 1, 1}}, "tokens"};
  }

  TextModelInput input;
  std::int64_t passes = 0, pretrained = 0;

 private:
  torch::nn::Embedding words_ = nullptr, segments_ = nullptr;
  torch::nn::Linear head_ = nullptr;
};

/// A vocab.txt with special tokens and these words.
inline std::string word_vocabulary(const std::vector<std::string>& words) {
  std::string text = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
  for (const auto& word : words) text += word + "\n";
  return text;
}

}  // namespace stoa::test
