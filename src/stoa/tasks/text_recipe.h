#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "stoa/base/options.h"
#include "stoa/tasks/text_model.h"

namespace stoa {

/// A text model as recipes have it: the table [model] is shown, checked and built by functions, so that tasks
/// do not know its type.
struct TextModelRecipe {
  VisitFields visit;
  std::function<void(const TextModelInput&)> validate;
  std::function<std::shared_ptr<TextModel>(const TextModelInput&)> make;
  std::function<std::string()> weights;  ///< where its pre-trained weights are; empty for none
  std::function<std::int64_t()>
      vocabulary;  ///< rows of its embedding, 0 for as many as the tokenizer has tokens
};

/// Of `Model`, a class derived from TextModel with a constructor (Options, TextModelInput). Options has
/// visit() validate(TextModelInput), `weights` and `vocabulary`.
template <class Model, class Options>
TextModelRecipe text_model_recipe() {
  const auto options = std::make_shared<Options>();
  return {[options](FieldVisitor& v) { options->visit(v); },
          [options](const TextModelInput& input) { options->validate(input); },
          [options](const TextModelInput& input) { return std::make_shared<Model>(*options, input); },
          [options] { return options->weights; }, [options] { return options->vocabulary; }};
}

/// Tokens in a vocabulary that is not there, where only sizes are asked for: BERT's.
inline constexpr std::int64_t kUsualVocabulary = 30522;

}  // namespace stoa
