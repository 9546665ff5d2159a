#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "stoa/data/text/squad_windows.h"
#include "stoa/tasks/answer_spans.h"
#include "stoa/tasks/text_recipe.h"
#include "stoa/train/task.h"

namespace stoa {

enum class QuestionFormat {
  kSquad1,  ///< SQuAD 1.1: each question's answer is in its context
  kSquad2,  ///< SQuAD 2.0: some have none
};

/// The questions: the table [data] of question answering.
struct QuestionDataOptions {
  QuestionFormat format = QuestionFormat::kSquad1;
  std::string path;        ///< folder of the files; a relative one is also looked for below $STOA_DATA
  std::string train, dev;  ///< names of the files; empty takes the published ones
  std::string tokenizer;   ///< as load_tokenizer() takes it; empty: beside the model's weights
  SquadWindowOptions windows;

  void visit(FieldVisitor& v);
  void validate() const;
};

/// Options of the task itself: the table [task].
struct QuestionAnsweringOptions {
  std::int64_t n_best = 20;
  std::int64_t max_answer_length = 30;
  double null_threshold = 0;

  void visit(FieldVisitor& v);
  void validate() const;
};

/// The recipe part of one text model under this task: [task], [data] and [model].
class QuestionAnsweringRecipe : public TaskRecipe {
 public:
  explicit QuestionAnsweringRecipe(TextModelRecipe model) : model_(std::move(model)) {}
  void visit(FieldVisitor& v) override;
  void validate() const override;
  std::unique_ptr<Task> build(const BuildContext& context) override;

 private:
  TextModelInput input(std::int64_t vocabulary) const;

  QuestionAnsweringOptions options_;
  QuestionDataOptions data_;
  TextModelRecipe model_;
};

/// One line of the catalog: answers that are parts of a text by `Model`, a class derived from TextModel with
/// a constructor (Options, TextModelInput); Options has visit() and validate(TextModelInput).
template <class Model, class Options>
CatalogEntry question_answering(const std::string& name, const std::string& summary) {
  return {"question_answering", name, summary,
          [] { return std::make_unique<QuestionAnsweringRecipe>(text_model_recipe<Model, Options>()); }};
}

}  // namespace stoa
