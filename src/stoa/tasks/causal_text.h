#pragma once

#include <memory>
#include <string>

#include "stoa/tasks/corpus_task.h"
#include "stoa/tasks/generation.h"

namespace stoa {

/// Options of the task itself: in the table [task].
struct CausalTextOptions {
  GenerationOptions generate;  ///< how predict() continues a text

  void visit(FieldVisitor& v);
  void validate() const;
};

/// The recipe part of one text model under this task.
class CausalTextRecipe : public CorpusRecipe {
 public:
  explicit CausalTextRecipe(TextModelRecipe model);

 protected:
  void visit_task(FieldVisitor& v) override { options_.visit(v); }
  void validate_task() const override { options_.validate(); }
  std::unique_ptr<Task> make(CorpusTask::Parts parts) const override;

 private:
  CausalTextOptions options_;
};

/// One line of the catalog: the next token of a text by `Model`, a class derived from TextModel.
template <class Model, class Options>
CatalogEntry causal_text(const std::string& name, const std::string& summary) {
  return {"causal_text", name, summary,
          [] { return std::make_unique<CausalTextRecipe>(text_model_recipe<Model, Options>()); }};
}

}  // namespace stoa
