#include "stoa/tasks/corpus_task.h"

#include <ATen/ATen.h>
#include <torch/types.h>

#include <cmath>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/find.h"
#include "stoa/data/text/masking.h"
#include "stoa/data/text/prepared_text.h"
#include "stoa/ops/linear.h"
#include "stoa/tasks/classification_exhibits.h"
#include "stoa/tasks/label_smoothing.h"

namespace stoa {

CorpusTask::CorpusTask(Parts parts)
    : data_(std::move(parts.data)),
      label_smoothing_(parts.label_smoothing),
      tokenizer_(std::move(parts.tokenizer)),
      model_(std::move(parts.model)) {
  if (!parts.open_data) return;
  const auto dataset = open_text_dataset(data_, tokenizer_.get());
  train_ = std::make_shared<const TextSamples>(dataset, data_, true);
  eval_ = std::make_shared<const TextSamples>(dataset, data_, false);
}

const TextSamples& CorpusTask::samples(const std::shared_ptr<const TextSamples>& samples) {
  if (!samples) throw Error("this task was built without its data");
  return *samples;
}

std::unique_ptr<BatchSource> CorpusTask::train_batches(const BatchPlan& plan) {
  samples(train_);
  return train_text_batches(train_, plan);
}

double CorpusTask::weight(const Batch& batch) const {
  return batch["targets"].ne(kNoTarget).sum().item<double>();
}

CorpusTask::Answer CorpusTask::answer(const Batch& batch) {
  const auto tokens = nn::pack_tokens(batch["ids"], batch["lengths"],
                                      batch.has("segments") ? batch["segments"] : at::Tensor());
  auto output = model_->forward(tokens);
  const auto targets = tokens.pack(batch["targets"]);
  // of a masked sequence a seventh of the tokens is asked for: the head sees no others
  const auto asked = targets.ne(kNoTarget).nonzero().squeeze(1);
  const bool all = asked.numel() == targets.numel();
  const auto scores = model_->language_scores(all ? output.hidden : output.hidden.index_select(0, asked));
  Answer answer;
  answer.tokens =
      ops::linear_cross_entropy(scores.rows, scores.weight, scores.bias,
                                all ? targets : targets.index_select(0, asked), label_smoothing_, kNoTarget);
  if (batch.has("pair")) answer.pairs = model_->pair_scores(output.hidden, tokens);
  answer.side = std::move(output.side);
  return answer;
}

LossResult CorpusTask::loss(const Batch& batch, const StepContext&) {
  auto found = answer(batch);
  LossResult result;
  result.loss = found.tokens.loss;
  result.metrics.push_back({"accuracy", found.tokens.correct.to(at::kFloat).mean()});
  result.side = std::move(found.side);
  if (found.pairs.defined()) {
    const auto scores = found.pairs.scalar_type() == at::kDouble ? found.pairs : found.pairs.to(at::kFloat);
    result.side.losses.push_back({"pair_loss", at::cross_entropy_loss(scores, batch["pair"])});
    result.metrics.push_back(
        {"pair_accuracy", scores.detach().argmax(1).eq(batch["pair"]).to(at::kFloat).mean()});
  }
  return result;
}

Evaluation CorpusTask::evaluate(const EvaluateOptions& options) {
  const at::NoGradGuard no_gradients;
  const bool was_training = model_->is_training();
  model_->eval();
  BatchPlan plan;
  plan.batch_size = options.batch_size;
  plan.workers = options.workers;
  const std::int64_t total = samples(eval_).size();
  std::int64_t done = 0;
  double loss = 0, right = 0, asked = 0, pair_loss = 0, pairs_right = 0;
  bool pairs = false;
  StatisticsMean statistics;
  if (options.progress) options.progress(0, total);
  auto batches = eval_text_batches(eval_, plan);
  for (auto batch = batches->next(); batch.samples > 0; batch = batches->next()) {
    batch = batch.to(device());
    const auto found = answer(batch);
    loss += found.tokens.row_loss.sum(at::kDouble).item<double>();
    right += found.tokens.correct.sum().item<double>();
    asked += static_cast<double>(found.tokens.correct.numel());
    if (found.pairs.defined()) {
      pairs = true;
      const auto truth = batch["pair"];
      pair_loss +=
          at::cross_entropy_loss(found.pairs.to(at::kDouble), truth, {}, at::Reduction::Sum).item<double>();
      pairs_right += found.pairs.argmax(1).eq(truth).sum().item<double>();
    }
    statistics.add(found.side.statistics, batch.samples);
    done += batch.samples;
    if (options.progress) options.progress(done, total);
  }
  model_->train(was_training);
  Evaluation evaluation;
  evaluation.metrics.set("loss", loss / asked);
  evaluation.metrics.set("perplexity", std::exp(loss / asked));
  evaluation.metrics.set("accuracy", right / asked);
  if (pairs) {
    evaluation.metrics.set("pair_loss", pair_loss / static_cast<double>(total));
    evaluation.metrics.set("pair_accuracy", pairs_right / static_cast<double>(total));
  }
  if (options.exhibits)
    for (auto& exhibit : model_->exhibits(statistics.means()))
      evaluation.exhibits.push_back(std::move(exhibit));
  return evaluation;
}

Batch CorpusTask::example(std::int64_t samples) {
  Batch batch;
  batch.samples = samples;
  batch.tensors["ids"] = at::arange(samples * data_.length)
                             .mul(7919)
                             .remainder(tokenizer_.vocabulary())
                             .view({samples, data_.length});
  batch.tensors["lengths"] = at::full({samples}, data_.length, at::kLong);
  return batch;
}

void CorpusTask::infer(const Batch& batch) {
  model_->forward(nn::pack_tokens(batch["ids"], batch["lengths"]));
}

void CorpusTask::save_examples(const std::filesystem::path& folder, std::int64_t count) {
  BatchPlan plan;
  plan.batch_size = 1;
  auto batches = eval_text_batches(eval_, plan);
  std::string lines;
  for (std::int64_t i = 0; i < std::min(count, samples(eval_).size()); ++i)
    lines += example_line(batches->next()) + "\n";
  std::filesystem::create_directories(folder);
  write_file_atomically(folder / "examples.txt", lines);
}

CorpusRecipe::CorpusRecipe(TextObjective objective, TextModelRecipe model) : model_(std::move(model)) {
  data_.objective = objective;
}

TextModelInput CorpusRecipe::input(std::int64_t vocabulary) const {
  TextModelInput input;
  input.vocabulary = vocabulary;
  input.length = data_.length;
  const bool causal = data_.objective == TextObjective::kCausal;
  input.head = causal ? TextHead::kCausal : TextHead::kMasked;
  input.sentence_pairs = !causal && data_.pairs != PairTask::kNone;
  return input;
}

void CorpusRecipe::visit(FieldVisitor& v) {
  v.enter("task", "what is learned");
  v.field("label_smoothing", label_smoothing_, "share of each target spread evenly over the vocabulary");
  visit_task(v);
  v.leave();
  v.group("data", data_, "the text");
  v.enter("model", "the model");
  model_.visit(v);
  v.leave();
}

void CorpusRecipe::validate() const {
  check_label_smoothing(label_smoothing_);
  validate_task();
  data_.validate();
  if (model_.vocabulary() > 0) model_.validate(input(model_.vocabulary()));
}

std::unique_ptr<Task> CorpusRecipe::build(const BuildContext& context) {
  TaskTokenizer tokenizer(tokenizer_place(data_), model_.weights(), model_.vocabulary(), context);
  if (context.open_data) tokenizer.get();
  const auto model_input = input(tokenizer.vocabulary());
  model_.validate(model_input);
  return make({data_, label_smoothing_, std::move(tokenizer), model_.make(model_input), context.open_data});
}

std::string tokenizer_place(const TextDataOptions& data) {
  if (!data.tokenizer.empty()) return data.tokenizer;
  std::filesystem::path place;
  try {
    place = find_data(data.train.at(0));
  } catch (const DataError&) {
    return {};  // what is missing is said where the text is opened
  }
  if (!std::filesystem::is_directory(place) || !is_prepared_text(place)) return {};
  const auto prepared = PreparedText::open(place);
  return prepared.kind == "bytes" ? prepared.kind : place.string();
}

at::Tensor token_scores(TextModel& model, const at::Tensor& rows) {
  const auto scores = model.language_scores(rows);
  return ops::linear(scores.rows, scores.weight, scores.bias).to(at::kCPU, at::kFloat);
}

}  // namespace stoa
