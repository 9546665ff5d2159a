#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "stoa/data/text/options.h"
#include "stoa/data/text/samples.h"
#include "stoa/ops/linear_cross_entropy.h"
#include "stoa/tasks/task_tokenizer.h"
#include "stoa/tasks/text_recipe.h"
#include "stoa/train/evaluation_rounds.h"
#include "stoa/train/task.h"

namespace stoa {

/// What masked and causal language models have in common: sequences cut from a corpus, and a loss over the
/// vocabulary for the tokens that are asked for.
class CorpusTask : public Task, public SharesEvaluation {
 public:
  /// What it is made of.
  struct Parts {
    TextDataOptions data;
    double label_smoothing;  ///< share of each target spread over the vocabulary
    TaskTokenizer tokenizer;
    std::shared_ptr<TextModel> model;
    bool open_data;
  };
  explicit CorpusTask(Parts parts);

  torch::nn::Module& model() override { return *model_; }
  nn::ModelDescription describe() override { return model_->describe(); }
  void load_pretrained() override { model_->load_pretrained(); }
  std::int64_t train_samples() const override { return samples(train_).size(); }
  std::unique_ptr<BatchSource> train_batches(const BatchPlan& plan) override;
  /// Tokens that are asked for: the loss is their mean.
  double weight(const Batch& batch) const override;
  double side_weight(const Batch& batch) const override;
  void split_sequences(const dist::SequenceSplit& split) override;
  LossResult loss(const Batch& batch, const StepContext& context) override;
  Evaluation evaluate(const EvaluateOptions& options) override;
  std::string primary_metric() const override { return "loss"; }
  bool higher_is_better() const override { return false; }
  Batch example(std::int64_t samples) override;
  void infer(const Batch& batch) override;
  void save_examples(const std::filesystem::path& folder, std::int64_t count) override;
  Json metadata() const override { return {{"tokenizer", tokenizer_.metadata()}}; }
  void save_files(const std::filesystem::path& folder) override { tokenizer_.save(folder); }
  void save_pretrained(const std::filesystem::path& folder) override {
    model_->save_pretrained(folder);
    tokenizer().save(folder);
  }

 protected:
  /// A forward pass on a batch, and what was asked of it; where sequences are split, of this process's
  /// tokens.
  struct Answer {
    ops::LinearCrossEntropy tokens;
    at::Tensor
        pairs;  ///< [sequences, 2] scores; undefined without pairs, or where the first tokens are elsewhere
    nn::SideOutputs side;
    std::shared_ptr<const nn::TokenExchange> exchange;  ///< null where sequences are whole
    /// Null where all layers are here. What was asked is known where the last one is; elsewhere the loss is
    /// TextOutput::link, all else undefined.
    std::shared_ptr<const nn::LayerExchange> stages;
    bool known() const { return tokens.row_loss.defined(); }
  };
  Answer answer(const Batch& batch);
  TextModel& text_model() { return *model_; }
  const Tokenizer& tokenizer() { return *tokenizer_.get(); }
  const TextDataOptions& data() const { return data_; }
  at::Device device() { return model_->parameters().front().device(); }
  /// A line that predict() can answer, from the text of an evaluation sample.
  virtual std::string example_line(const Batch& batch) = 0;

 private:
  /// This process's tokens of a batch, and its targets [tokens].
  std::pair<nn::PackedTokens, at::Tensor> pack(const Batch& batch) const;
  at::Tensor targets(const Batch& batch) const;
  static at::Tensor sums_of(const Answer& found, const Batch& batch);
  static void add_pairs(const Batch& batch, const Answer& found, LossResult& result);
  static const TextSamples& samples(const std::shared_ptr<const TextSamples>& samples);

  TextDataOptions data_;
  double label_smoothing_;
  TaskTokenizer tokenizer_;
  std::shared_ptr<TextModel> model_;
  std::shared_ptr<const TextSamples> train_, eval_;
  dist::SequenceSplit split_;
};

/// The recipe part of one text model under such a task: [task], [data] and [model].
class CorpusRecipe : public TaskRecipe {
 public:
  CorpusRecipe(TextObjective objective, TextModelRecipe model);
  void visit(FieldVisitor& v) override;
  void validate() const override;
  std::unique_ptr<Task> build(const BuildContext& context) override;

 protected:
  /// The task's own options, beside label_smoothing.
  virtual void visit_task(FieldVisitor& v) = 0;
  virtual void validate_task() const = 0;
  virtual std::unique_ptr<Task> make(CorpusTask::Parts parts) const = 0;

 private:
  TextModelInput input(std::int64_t vocabulary) const;

  double label_smoothing_ = 0;
  TextDataOptions data_;
  TextModelRecipe model_;
};

/// Where the tokenizer of a corpus is, as TaskTokenizer takes it: `data.tokenizer`, or else in the folder of
/// prepared text that is trained on; empty where neither is there.
std::string tokenizer_place(const TextDataOptions& data);

/// Scores over the vocabulary for rows [rows, dim] of the hidden states, [rows, vocabulary] in fp32 on
/// the CPU.
at::Tensor token_scores(TextModel& model, const at::Tensor& rows);

}  // namespace stoa
