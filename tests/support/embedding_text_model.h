#pragma once

#include <ATen/ATen.h>

#include <string>

#include "stoa/nn/init.h"
#include "stoa/tasks/text_model.h"

namespace stoa::test {

struct EmbeddingTextOptions {
  std::string weights;
  std::int64_t vocabulary = 0;
  void visit(FieldVisitor&) {}
  void validate(const TextModelInput&) const {}
};

/// A text model whose hidden states are the tokens' embeddings, and whose scores are products with them: what
/// a task makes of it can be computed by hand.
class EmbeddingTextModel : public TextModel {
 public:
  EmbeddingTextModel(const EmbeddingTextOptions&, const TextModelInput& input)
      : word(register_parameter("word", at::empty({input.vocabulary, 6}))),
        pair(register_parameter("pair", at::empty({2, 6}))) {
    nn::normal_(word, 1);
    nn::normal_(pair, 1);
  }
  TextOutput forward(const nn::PackedTokens& tokens) override {
    return {at::embedding(word, tokens.ids), {}};
  }
  LanguageScores language_scores(const at::Tensor& rows) override { return {rows, word, {}}; }
  at::Tensor pair_scores(const at::Tensor& hidden, const nn::PackedTokens& tokens) override {
    return tokens.first(hidden).matmul(pair.t());
  }
  at::Tensor class_scores(const at::Tensor& hidden, const nn::PackedTokens& tokens) override {
    return tokens.mean(hidden).matmul(pair.t());
  }
  at::Tensor span_scores(const at::Tensor& hidden) override { return hidden.matmul(pair.t()); }
  at::Tensor continued(const at::Tensor& ids, TextCache& cache) override {
    cache.tokens += ids.size(1);
    return at::embedding(word, ids.select(1, ids.size(1) - 1));
  }
  nn::ModelDescription describe() const override { return {}; }

  at::Tensor word, pair;
};

}  // namespace stoa::test
