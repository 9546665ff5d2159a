#pragma once

#include <memory>
#include <string>

#include "stoa/data/text/options.h"
#include "stoa/tasks/generation.h"
#include "stoa/tasks/text_recipe.h"
#include "stoa/train/task.h"

namespace stoa {

/// Options of the task itself: the table [task].
struct CausalTextOptions {
  double label_smoothing = 0;  ///< share of each target spread over the vocabulary
  GenerationOptions generate;  ///< how predict() continues a text

  void visit(FieldVisitor& v);
  void validate() const;
};

/// The recipe part of one text model under this task: [task], [data] and [model].
class CausalTextRecipe : public TaskRecipe {
 public:
  explicit CausalTextRecipe(TextModelRecipe model);
  void visit(FieldVisitor& v) override;
  void validate() const override;
  std::unique_ptr<Task> build(const BuildContext& context) override;

 private:
  CausalTextOptions options_;
  TextDataOptions data_;
  TextModelRecipe model_;
};

/// One line of the catalog: the next token of a text by `Model`, a class derived from TextModel.
template <class Model, class Options>
CatalogEntry causal_text(const std::string& name, const std::string& summary) {
  return {"causal_text", name, summary,
          [] { return std::make_unique<CausalTextRecipe>(text_model_recipe<Model, Options>()); }};
}

}  // namespace stoa
