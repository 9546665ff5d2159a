#pragma once

#include <memory>
#include <string>

#include "stoa/tasks/corpus_task.h"

namespace stoa {

/// Options of the task itself: in the table [task].
struct MaskedTextOptions {
  std::int64_t top = 5;  ///< tokens that predict() names for a masked place

  void visit(FieldVisitor& v);
  void validate() const;
};

/// The recipe part of one text model under this task.
class MaskedTextRecipe : public CorpusRecipe {
 public:
  explicit MaskedTextRecipe(TextModelRecipe model);

 protected:
  void visit_task(FieldVisitor& v) override { options_.visit(v); }
  void validate_task() const override { options_.validate(); }
  std::unique_ptr<Task> make(CorpusTask::Parts parts) const override;

 private:
  MaskedTextOptions options_;
};

/// One line of the catalog: masked tokens, and next sentence or sentence order, by `Model`, a class derived
/// from TextModel (bamboo.md 2.12, sequence-parallelism.md 4).
template <class Model, class Options>
CatalogEntry masked_text(const std::string& name, const std::string& summary) {
  return {"masked_text", name, summary,
          [] { return std::make_unique<MaskedTextRecipe>(text_model_recipe<Model, Options>()); }};
}

}  // namespace stoa
