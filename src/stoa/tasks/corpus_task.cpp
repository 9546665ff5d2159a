#include "stoa/tasks/corpus_task.h"

#include <ATen/ATen.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/find.h"
#include "stoa/data/text/masking.h"
#include "stoa/data/text/prepared_text.h"
#include "stoa/nn/split_vocabulary.h"
#include "stoa/ops/linear.h"
#include "stoa/tasks/classification_exhibits.h"
#include "stoa/tasks/label_smoothing.h"

namespace stoa {
namespace {

/// values [sequences, length] without what is padding in every sequence: split sequences compute with the
/// rest of their padding. What is drawn for a token depends on its place alone, not on the length.
at::Tensor up_to_longest(const at::Tensor& values, const at::Tensor& lengths) {
  if (!values.defined() || lengths.numel() == 0) return values;
  const auto longest = std::max<std::int64_t>(lengths.max().item<std::int64_t>(), 1);
  return values.slice(1, 0, longest);
}

}  // namespace

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
  return targets(batch).ne(kNoTarget).sum().item<double>();
}

/// Sentence pairs are told apart by their first tokens.
double CorpusTask::side_weight(const Batch& batch) const {
  return split_ && split_.group->rank() != 0 ? 0 : static_cast<double>(batch.samples);
}

void CorpusTask::split_sequences(const dist::SequenceSplit& split) {
  if (!model_->splits_sequences())
    throw ConfigError(
        "`parallel.sequence` is over 1, but this model needs whole sequences (a mixture of experts routes "
        "their tokens together); set it to 1");
  split_ = split;
}

at::Tensor CorpusTask::targets(const Batch& batch) const {
  if (!split_) return batch["targets"].flatten();
  return dist::split_values(up_to_longest(batch["targets"], batch["lengths"]), static_cast<double>(kNoTarget),
                            split_);
}

std::pair<nn::PackedTokens, at::Tensor> CorpusTask::pack(const Batch& batch) const {
  const auto segments = batch.has("segments") ? batch["segments"] : at::Tensor();
  if (split_) {
    const auto& lengths = batch["lengths"];
    return {dist::split_tokens(up_to_longest(batch["ids"], lengths), lengths,
                               up_to_longest(segments, lengths), split_),
            targets(batch)};
  }
  auto tokens = nn::pack_tokens(batch["ids"], batch["lengths"], segments);
  auto packed = tokens.pack(batch["targets"]);
  return {std::move(tokens), std::move(packed)};
}

CorpusTask::Answer CorpusTask::answer(const Batch& batch) {
  const auto [tokens, targets] = pack(batch);
  auto output = model_->forward(tokens);
  if (output.link.defined()) return {{output.link, {}, {}}, {}, {}, tokens.exchange, output.stages};
  // of a masked sequence a seventh of the tokens is asked for: the head sees no others
  const auto asked = targets.ne(kNoTarget).nonzero().squeeze(1);
  const bool all = asked.numel() == targets.numel(), none = asked.numel() == 0;
  Answer answer;
  answer.exchange = tokens.exchange;
  answer.stages = std::move(output.stages);
  // Every pass goes through every head, for nothing where nothing is asked: processes that share gradients
  // out exchange them while their backward passes run, and wait for one another where one has a gradient that
  // another has not.
  const auto rows = all    ? output.hidden
                    : none ? output.hidden.slice(0, 0, 1)
                           : output.hidden.index_select(0, asked);
  const auto wanted = all    ? targets
                      : none ? at::zeros({1}, targets.options())
                             : targets.index_select(0, asked);
  const auto scores = model_->language_scores(rows);
  answer.tokens = scores.exchange ? nn::split_cross_entropy(scores.rows, scores.weight, scores.bias, wanted,
                                                            scores.vocabulary, label_smoothing_, kNoTarget,
                                                            *scores.exchange)
                                  : ops::linear_cross_entropy(scores.rows, scores.weight, scores.bias, wanted,
                                                              label_smoothing_, kNoTarget);
  if (none) {
    const auto nothing = output.hidden.new_empty({0});
    answer.tokens = {0 * answer.tokens.loss, nothing, nothing.to(at::kBool)};
  }
  if (batch.has("pair")) {
    const auto pairs = model_->pair_scores(output.hidden, tokens);
    if (!tokens.exchange || tokens.exchange->has_first())
      answer.pairs = pairs;
    else
      answer.tokens.loss = answer.tokens.loss + 0 * pairs.sum();
  }
  answer.side = std::move(output.side);
  return answer;
}

LossResult CorpusTask::loss(const Batch& batch, const StepContext&) {
  auto found = answer(batch);
  LossResult result;
  result.loss = found.tokens.loss;
  if (!found.known()) return result;
  result.metrics.push_back({"accuracy", found.tokens.correct.to(at::kFloat).mean()});
  result.side = found.side;
  if (batch.has("pair")) add_pairs(batch, found, result);
  return result;
}

void CorpusTask::add_pairs(const Batch& batch, const Answer& found, LossResult& result) {
  auto loss = 0 * found.tokens.loss, accuracy = at::zeros({}, batch["pair"].options().dtype(at::kFloat));
  if (found.pairs.defined()) {
    const auto scores = found.pairs.scalar_type() == at::kDouble ? found.pairs : found.pairs.to(at::kFloat);
    loss = at::cross_entropy_loss(scores, batch["pair"]);
    accuracy = scores.detach().argmax(1).eq(batch["pair"]).to(at::kFloat).mean();
  }
  result.side.losses.push_back({"pair_loss", loss});
  result.side_metrics.push_back({"pair_accuracy", accuracy});
}

/// Of tokens: loss, those right, those asked for; of pairs: loss, those right.
at::Tensor CorpusTask::sums_of(const Answer& found, const Batch& batch) {
  std::vector<double> numbers = {found.tokens.row_loss.sum(at::kDouble).item<double>(),
                                 found.tokens.correct.sum().item<double>(),
                                 static_cast<double>(found.tokens.correct.numel()), 0, 0};
  if (found.pairs.defined()) {
    const auto truth = batch["pair"];
    numbers[3] =
        at::cross_entropy_loss(found.pairs.to(at::kDouble), truth, {}, at::Reduction::Sum).item<double>();
    numbers[4] = found.pairs.argmax(1).eq(truth).sum().item<double>();
  }
  const auto sums = at::tensor(numbers, at::kDouble);
  return found.exchange ? found.exchange->sum(sums) : sums;
}

Evaluation CorpusTask::evaluate(const EvaluateOptions& options) {
  const at::NoGradGuard no_gradients;
  const bool was_training = model_->is_training();
  model_->eval();
  auto rounds = this->rounds(samples(eval_).size(), options.batch_size, options.workers);
  auto sums = at::zeros({5}, at::kDouble);
  const bool pairs = data_.objective == TextObjective::kMasked && data_.pairs != PairTask::kNone;
  StatisticsMean statistics;
  std::shared_ptr<const nn::LayerExchange> stages;
  if (options.progress) options.progress(0, rounds.samples());
  auto batches = eval_text_batches(eval_, rounds.plan());
  for (auto batch = batches->next(); batch.samples > 0; batch = batches->next()) {
    batch = batch.to(device());
    const auto found = answer(batch);
    stages = found.stages;
    const auto own = found.known() ? sums_of(found, batch) : at::zeros_like(sums);
    for (const auto& answer : rounds.share({own}, found.side.statistics)) {
      sums += answer.tensors[0];
      statistics.add(answer.statistics, answer.samples);
    }
    if (options.progress) options.progress(rounds.done(), rounds.samples());
  }
  model_->train(was_training);
  if (stages) stages->take_last(sums);
  const auto mean = [&](std::int64_t sum, double of) { return sums[sum].item<double>() / of; };
  const double asked = sums[2].item<double>(), sequences = static_cast<double>(rounds.samples());
  Evaluation evaluation;
  evaluation.metrics.set("loss", mean(0, asked));
  evaluation.metrics.set("perplexity", std::exp(mean(0, asked)));
  evaluation.metrics.set("accuracy", mean(1, asked));
  if (pairs) {
    evaluation.metrics.set("pair_loss", mean(3, sequences));
    evaluation.metrics.set("pair_accuracy", mean(4, sequences));
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
