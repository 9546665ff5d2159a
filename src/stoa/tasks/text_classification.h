#pragma once

#include <memory>
#include <string>

#include "stoa/tasks/text_recipe.h"
#include "stoa/tasks/text_rows.h"
#include "stoa/train/task.h"

namespace stoa {

/// What says which checkpoint of a classifier is best, and what else is measured.
enum class TextMetric {
  kAuto,  ///< the official one of a GLUE task; accuracy, or the correlation of numbers
  kAccuracy,
  kF1,  ///< of the second of two classes; counts as the mean with accuracy, as GLUE has it
  kMatthews,
  kCorrelation,  ///< mean of Pearson's and Spearman's
};

/// Options of the task itself: the table [task].
struct TextClassificationOptions {
  double label_smoothing = 0;  ///< share of each target spread over all classes
  TextMetric metric = TextMetric::kAuto;

  void visit(FieldVisitor& v);
  void validate(const TextTableForm& form) const;
};

/// The recipe part of one text model under this task: [task], [data] and [model].
class TextClassificationRecipe : public TaskRecipe {
 public:
  explicit TextClassificationRecipe(TextModelRecipe model) : model_(std::move(model)) {}
  void visit(FieldVisitor& v) override;
  void validate() const override;
  std::unique_ptr<Task> build(const BuildContext& context) override;

 private:
  TextModelInput input(std::int64_t vocabulary, std::int64_t classes) const;

  TextClassificationOptions options_;
  TextRowsOptions data_;
  TextModelRecipe model_;
};

/// One line of the catalog: classes of sentences and of pairs of them (or a number) by `Model`, a class
/// derived from TextModel with a constructor (Options, TextModelInput); Options has visit() and
/// validate(TextModelInput).
template <class Model, class Options>
CatalogEntry text_classification(const std::string& name, const std::string& summary) {
  return {"text_classification", name, summary,
          [] { return std::make_unique<TextClassificationRecipe>(text_model_recipe<Model, Options>()); }};
}

}  // namespace stoa
