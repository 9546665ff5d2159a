#pragma once

#include <memory>
#include <string>

#include "stoa/data/text/options.h"
#include "stoa/tasks/text_recipe.h"
#include "stoa/train/task.h"

namespace stoa {

/// Options of the task itself: the table [task].
struct MaskedTextOptions {
  double label_smoothing = 0;  ///< share of each target spread over the vocabulary
  std::int64_t top = 5;        ///< tokens that predict() names for a masked place

  void visit(FieldVisitor& v);
  void validate() const;
};

/// The recipe part of one text model under this task: [task], [data] and [model].
class MaskedTextRecipe : public TaskRecipe {
 public:
  explicit MaskedTextRecipe(TextModelRecipe model);
  void visit(FieldVisitor& v) override;
  void validate() const override;
  std::unique_ptr<Task> build(const BuildContext& context) override;

 private:
  TextModelInput input(std::int64_t vocabulary) const;

  MaskedTextOptions options_;
  TextDataOptions data_;
  TextModelRecipe model_;
};

/// One line of the catalog: masked tokens, and next sentence or sentence order, by `Model`, a class derived
/// from TextModel (bamboo.md 2.12, sequence-parallelism.md 4).
template <class Model, class Options>
CatalogEntry masked_text(const std::string& name, const std::string& summary) {
  return {"masked_text", name, summary,
          [] { return std::make_unique<MaskedTextRecipe>(text_model_recipe<Model, Options>()); }};
}

}  // namespace stoa
