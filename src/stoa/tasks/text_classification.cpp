#include "stoa/tasks/text_classification.h"

#include <ATen/ATen.h>
#include <torch/types.h>

#include <algorithm>
#include <numeric>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/metrics/classification.h"
#include "stoa/metrics/correlation.h"
#include "stoa/tasks/classification_exhibits.h"
#include "stoa/tasks/label_smoothing.h"
#include "stoa/tasks/task_tokenizer.h"
#include "stoa/tasks/text_input.h"
#include "stoa/train/evaluation_rounds.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kRowsOfAnAnswer = 64;  // that predict() passes through the model at once
constexpr std::size_t kMistakes = 20;         // that a report shows

TextMetric metric_of(TextMetric asked, TextFormat format, bool numbers) {
  if (asked != TextMetric::kAuto) return asked;
  if (numbers) return TextMetric::kCorrelation;
  if (format == TextFormat::kCola) return TextMetric::kMatthews;
  return format == TextFormat::kMrpc || format == TextFormat::kQqp ? TextMetric::kF1 : TextMetric::kAccuracy;
}

/// Longer words for a report: "accuracy", and of a further set "accuracy_mismatched".
std::string named(const std::string& metric, const std::string& set) {
  return set.empty() ? metric : metric + "_" + set;
}

std::string sentences(const LabelledText& row) {
  return row.second.empty() ? row.first : row.first + " | " + row.second;
}

class TextClassification : public Task, public SharesEvaluation {
 public:
  TextClassification(TextClassificationOptions options, TextRowsOptions data, TaskTokenizer tokenizer,
                     std::shared_ptr<TextModel> model, std::vector<std::string> classes,
                     std::optional<TextSplits> splits)
      : options_(options),
        data_(std::move(data)),
        tokenizer_(std::move(tokenizer)),
        model_(std::move(model)),
        classes_(std::move(classes)),
        form_(data_.form()),
        metric_(metric_of(options_.metric, data_.format, form_.numbers)),
        splits_(std::move(splits)) {}

  torch::nn::Module& model() override { return *model_; }
  nn::ModelDescription describe() override { return model_->describe(); }
  void load_pretrained() override { model_->load_pretrained(); }
  std::int64_t train_samples() const override { return splits().train.size(); }
  std::string primary_metric() const override {
    if (metric_ == TextMetric::kMatthews) return "matthews";
    return metric_ == TextMetric::kAccuracy ? "accuracy" : "score";
  }
  Json metadata() const override { return {{"class_names", classes_}, {"tokenizer", tokenizer_.metadata()}}; }
  void save_files(const fs::path& folder) override { tokenizer_.save(folder); }
  void save_pretrained(const fs::path& folder) override {
    model_->save_pretrained(folder);
    tokenizer_.get()->save(folder);
  }

  std::unique_ptr<BatchSource> train_batches(const BatchPlan& plan) override {
    auto& rows = splits().train;
    rows.tokenize(*tokenizer_.get(), data_.length);
    return shuffled_batches(rows.size(), plan, [&rows](const std::vector<SampleKey>& keys) {
      std::vector<std::int64_t> numbers;
      for (const auto& key : keys) numbers.push_back(key.index);
      return rows.batch(numbers);
    });
  }

  LossResult loss(const Batch& batch, const StepContext&) override {
    auto [scores, side] = score(batch);
    const auto& labels = batch["labels"];
    LossResult result;
    result.side = std::move(side);
    if (form_.numbers) {
      const auto values = scores.squeeze(1), target = labels.to(scores.scalar_type());
      result.loss = at::mse_loss(values, target);
      result.metrics.push_back({"absolute_error", (values.detach() - target).abs().mean()});
    } else {
      result.loss =
          at::cross_entropy_loss(scores, labels, {}, at::Reduction::Mean, -100, options_.label_smoothing);
      result.metrics.push_back({"accuracy", scores.detach().argmax(1).eq(labels).to(at::kFloat).mean()});
    }
    return result;
  }

  Evaluation evaluate(const EvaluateOptions& options) override;
  std::vector<Prediction> predict(std::span<const std::string> inputs) override;
  std::vector<std::string> save_predictions(const fs::path& folder, const EvaluateOptions& options) override;
  Batch example(std::int64_t samples) override;
  void infer(const Batch& batch) override { score(batch); }
  void save_examples(const fs::path& folder, std::int64_t count) override;

 private:
  struct Scored {
    at::Tensor scores;  // [batch, classes], fp32 at least
    nn::SideOutputs side;
  };

  TextSplits& splits() {
    if (!splits_) throw Error("this task was built without its data");
    return *splits_;
  }
  const TextSplits& splits() const { return const_cast<TextClassification*>(this)->splits(); }

  Scored score(const Batch& batch) {
    const auto tokens = nn::pack_tokens(batch["ids"], batch["lengths"], batch["segments"]);
    auto output = model_->forward(tokens);
    auto scores = model_->class_scores(output.hidden, tokens);
    if (scores.scalar_type() != at::kDouble) scores = scores.to(at::kFloat);
    return {scores, std::move(output.side)};
  }
  at::Tensor score_all(TextRows& rows, EvaluationRounds rounds,
                       const std::function<void(std::int64_t)>& advance = {},
                       StatisticsMean* statistics = nullptr);
  void measure(const TextRows& rows, const at::Tensor& scores, bool exhibits, Evaluation& evaluation) const;
  void measure_numbers(const TextRows& rows, const at::Tensor& scores, bool exhibits,
                       Evaluation& evaluation) const;
  Exhibit mistakes(const TextRows& rows, const at::Tensor& errors,
                   const std::function<std::string(std::int64_t)>& answer) const;
  const std::string& class_name(std::int64_t number) const {
    return classes_.at(static_cast<std::size_t>(number));
  }

  TextClassificationOptions options_;
  TextRowsOptions data_;
  TaskTokenizer tokenizer_;
  std::shared_ptr<TextModel> model_;
  std::vector<std::string> classes_;  // none where labels are numbers
  TextTableForm form_;
  TextMetric metric_;
  std::optional<TextSplits> splits_;
};

/// Scores of all rows in their order, [rows, classes] fp64 on the CPU, computed in batches of like lengths.
at::Tensor TextClassification::score_all(TextRows& rows, EvaluationRounds rounds,
                                         const std::function<void(std::int64_t)>& advance,
                                         StatisticsMean* statistics) {
  const at::NoGradGuard no_gradients;
  const bool was_training = model_->is_training();
  model_->eval();
  const auto device = model_->parameters().front().device();
  rows.tokenize(*tokenizer_.get(), data_.length);
  const auto order = rows.by_length();
  auto batches = ordered_batches(rows.size(), rounds.plan(), [&](const std::vector<SampleKey>& keys) {
    std::vector<std::int64_t> numbers;
    for (const auto& key : keys) numbers.push_back(order[static_cast<std::size_t>(key.index)]);
    return rows.batch(numbers);
  });
  std::vector<at::Tensor> parts;
  for (auto batch = batches->next(); batch.samples > 0; batch = batches->next()) {
    auto [scores, side] = score(batch.to(device));
    for (const auto& answer : rounds.share({scores}, side.statistics)) {
      parts.push_back(answer.tensors[0].to(at::kCPU, at::kDouble));
      if (statistics != nullptr) statistics->add(answer.statistics, answer.samples);
    }
    if (advance) advance(rounds.done());
  }
  model_->train(was_training);
  const auto sorted = at::cat(parts);
  return at::empty_like(sorted).index_copy_(0, at::tensor(order, at::kLong), sorted);
}

Evaluation TextClassification::evaluate(const EvaluateOptions& options) {
  std::int64_t total = 0, done = 0;
  for (const auto& rows : splits().dev) total += rows.size();
  if (options.progress) options.progress(0, total);
  Evaluation evaluation;
  StatisticsMean statistics;
  for (auto& rows : splits().dev) {
    const auto scores = score_all(
        rows, rounds(rows.size(), options.batch_size, options.workers),
        [&](std::int64_t of_these) {
          if (options.progress) options.progress(done + of_these, total);
        },
        &statistics);
    done += rows.size();
    const bool exhibits = options.exhibits && rows.name().empty();
    if (form_.numbers)
      measure_numbers(rows, scores, exhibits, evaluation);
    else
      measure(rows, scores, exhibits, evaluation);
  }
  if (options.exhibits)
    for (auto& exhibit : model_->exhibits(statistics.means()))
      evaluation.exhibits.push_back(std::move(exhibit));
  return evaluation;
}

void TextClassification::measure(const TextRows& rows, const at::Tensor& scores, bool exhibits,
                                 Evaluation& evaluation) const {
  std::vector<std::int64_t> labels;
  for (const auto& row : rows.rows()) labels.push_back(static_cast<std::int64_t>(row.label));
  const auto truth = at::tensor(labels, at::kLong);
  const auto classes = std::ssize(classes_);
  metrics::ClassificationCounts counts(classes, 1);
  counts.add(scores, truth);
  const auto set = [&](const std::string& name, double value) {
    evaluation.metrics.set(named(name, rows.name()), value);
  };
  if (metric_ == TextMetric::kF1) {
    const double f1 = metrics::f1(counts.confusion(), classes, 1);
    set("score", (f1 + counts.accuracy()) / 2);
    set("f1", f1);
  }
  if (metric_ == TextMetric::kMatthews) set("matthews", metrics::matthews(counts.confusion(), classes));
  set("accuracy", counts.accuracy());
  set("loss", counts.negative_log_likelihood());
  if (!exhibits) return;
  if (classes <= kLargestConfusion)
    evaluation.exhibits.push_back(confusion_exhibit(counts.confusion(), classes_));
  const auto shares = scores.softmax(1);
  const auto [best, guess] = shares.max(1);
  const auto wrong = at::where(guess.eq(truth), at::zeros_like(best), best);
  evaluation.exhibits.push_back(mistakes(rows, wrong, [&, best = best, guess = guess](std::int64_t i) {
    return format("{} {:.0f} %", class_name(guess[i].item<std::int64_t>()), 100 * best[i].item<double>());
  }));
}

void TextClassification::measure_numbers(const TextRows& rows, const at::Tensor& scores, bool exhibits,
                                         Evaluation& evaluation) const {
  const auto values = scores.select(1, 0).contiguous();
  const std::span<const double> found(values.const_data_ptr<double>(),
                                      static_cast<std::size_t>(values.numel()));
  std::vector<double> truth;
  for (const auto& row : rows.rows()) truth.push_back(row.label);
  const double pearson = metrics::pearson(found, truth), spearman = metrics::spearman(found, truth);
  const auto errors = values - at::tensor(truth, at::kDouble);
  const auto set = [&](const std::string& name, double value) {
    evaluation.metrics.set(named(name, rows.name()), value);
  };
  set("score", (pearson + spearman) / 2);
  set("pearson", pearson);
  set("spearman", spearman);
  set("loss", errors.square().mean().item<double>());
  if (!exhibits) return;
  evaluation.exhibits.push_back(mistakes(rows, errors.abs(), [&](std::int64_t i) {
    return format("{:.2f}", found[static_cast<std::size_t>(i)]);
  }));
}

/// The rows with the largest errors; those of error 0 are right.
Exhibit TextClassification::mistakes(const TextRows& rows, const at::Tensor& errors,
                                     const std::function<std::string(std::int64_t)>& answer) const {
  TableExhibit table;
  table.headings = {"text", "answer", "truth"};
  const auto [size, number] = errors.sort(/*stable=*/true, 0, /*descending=*/true);
  for (std::int64_t place = 0; place < rows.size() && table.rows.size() < kMistakes; ++place) {
    if (size[place].item<double>() == 0) break;
    const auto i = number[place].item<std::int64_t>();
    const auto& row = rows.rows()[static_cast<std::size_t>(i)];
    table.rows.push_back(
        {sentences(row), answer(i),
         form_.numbers ? format("{:.2f}", row.label) : class_name(static_cast<std::int64_t>(row.label))});
  }
  return {"Mistakes", "The evaluation rows that are furthest off.", table};
}

std::vector<Prediction> TextClassification::predict(std::span<const std::string> inputs) {
  std::vector<Prediction> predictions;
  for (const auto& input : inputs) {
    const auto [text, where] = read_text_input(input);
    LabelledTexts texts;
    texts.rows = parse_sentences(text, where, form_);
    TextRows rows("", std::move(texts), form_);
    const auto scores = score_all(rows, {rows.size(), kRowsOfAnAnswer, 0});
    const auto shares = form_.numbers ? scores : scores.softmax(1);
    Prediction prediction;
    prediction.json["answers"] = Json::array();
    for (std::int64_t i = 0; i < rows.size(); ++i) {
      if (form_.numbers) {
        const double value = scores[i][0].item<double>();
        prediction.json["answers"].push_back({{"value", value}});
        prediction.text += format("{:.4f}\n", value);
        continue;
      }
      const auto best = shares[i].argmax().item<std::int64_t>();
      Json all = Json::object();
      for (std::int64_t c = 0; c < std::ssize(classes_); ++c)
        all[class_name(c)] = shares[i][c].item<double>();
      const double probability = shares[i][best].item<double>();
      prediction.json["answers"].push_back(
          {{"class", class_name(best)}, {"probability", probability}, {"probabilities", all}});
      prediction.text += format("{}\t{:.4f}\n", class_name(best), probability);
    }
    predictions.push_back(std::move(prediction));
  }
  return predictions;
}

std::vector<std::string> TextClassification::save_predictions(const fs::path& folder,
                                                              const EvaluateOptions& options) {
  auto sets = open_test_rows(data_);
  fs::create_directories(folder);
  std::vector<std::string> files;
  GlueLayout layout;  // of a table: the form of GLUE, with the labels as they are
  if (data_.glue() != nullptr) layout = *data_.glue();
  for (auto& [file, rows] : sets) {
    const auto scores = score_all(rows, {rows.size(), options.batch_size, options.workers});
    const auto answers =
        (form_.numbers ? scores.select(1, 0) : scores.argmax(1).to(at::kDouble)).contiguous();
    const std::span<const double> values(answers.const_data_ptr<double>(),
                                         static_cast<std::size_t>(answers.numel()));
    std::string text;
    if (data_.glue() != nullptr) {
      text = glue_submission(layout, values);
    } else {
      text = "index\tprediction\n";
      for (std::size_t i = 0; i < values.size(); ++i)
        text +=
            format("{}\t", i) +
            (form_.numbers ? format("{:.6g}", values[i]) : class_name(static_cast<std::int64_t>(values[i]))) +
            "\n";
    }
    write_file_atomically(folder / file, text);
    files.push_back((folder / file).string());
  }
  return files;
}

Batch TextClassification::example(std::int64_t samples) {
  const auto ids = at::arange(samples * data_.length).mul(7919).remainder(tokenizer_.vocabulary());
  Batch batch;
  batch.samples = samples;
  batch.tensors["ids"] = ids.view({samples, data_.length});
  batch.tensors["segments"] = at::zeros({samples, data_.length}, at::kLong);
  batch.tensors["lengths"] = at::full({samples}, data_.length, at::kLong);
  return batch;
}

void TextClassification::save_examples(const fs::path& folder, std::int64_t count) {
  const auto& rows = splits().dev.front().rows();
  std::string lines;
  for (std::int64_t i = 0; i < std::min(count, std::ssize(rows)); ++i) {
    const auto& row = rows[static_cast<std::size_t>(i)];
    Json line = {{form_.first, row.first}};
    if (form_.pair()) line[form_.second] = row.second;
    if (form_.numbers)
      line["label"] = row.label;
    else
      line["label"] = class_name(static_cast<std::int64_t>(row.label));
    lines += line.dump() + "\n";
  }
  fs::create_directories(folder);
  write_file_atomically(folder / "examples.jsonl", lines);
}

}  // namespace

void TextClassificationOptions::visit(FieldVisitor& v) {
  v.field("label_smoothing", label_smoothing, "share of each target spread evenly over all classes");
  v.choice("metric", metric,
           {{"auto", TextMetric::kAuto},
            {"accuracy", TextMetric::kAccuracy},
            {"f1", TextMetric::kF1},
            {"matthews", TextMetric::kMatthews},
            {"correlation", TextMetric::kCorrelation}},
           "what the best checkpoint is chosen by; auto takes GLUE's own, else accuracy or, of numbers, "
           "correlation");
}

void TextClassificationOptions::validate(const TextTableForm& form) const {
  check_label_smoothing(label_smoothing);
  if (form.numbers && label_smoothing > 0)
    throw ConfigError("`task.label_smoothing` is set, but numbers are predicted; it is for classes");
  const bool correlates = metric == TextMetric::kCorrelation;
  if (metric != TextMetric::kAuto && correlates != form.numbers)
    throw ConfigError(form.numbers
                          ? "`task.metric` is for classes, but numbers are predicted; take \"correlation\""
                          : "`task.metric` is \"correlation\", which is for numbers, but classes are "
                            "predicted; take another");
  if (metric == TextMetric::kF1 && !form.classes.empty() && form.classes.size() != 2)
    throw ConfigError(
        format("`task.metric` is \"f1\", which is for two classes; there are {}", form.classes.size()));
}

TextModelInput TextClassificationRecipe::input(std::int64_t vocabulary, std::int64_t classes) const {
  TextModelInput input;
  input.vocabulary = vocabulary;
  input.length = data_.length;
  input.head = TextHead::kClasses;
  input.classes = classes;
  return input;
}

void TextClassificationRecipe::visit(FieldVisitor& v) {
  v.group("task", options_, "what is learned");
  v.group("data", data_, "the sentences");
  v.enter("model", "the model");
  model_.visit(v);
  v.leave();
}

void TextClassificationRecipe::validate() const {
  data_.validate();
  const auto form = data_.form();
  options_.validate(form);
  const auto classes = form.numbers ? 1 : std::max<std::int64_t>(2, std::ssize(form.classes));
  model_.validate(input(model_.vocabulary() > 0 ? model_.vocabulary() : kUsualVocabulary, classes));
}

std::unique_ptr<Task> TextClassificationRecipe::build(const BuildContext& context) {
  TaskTokenizer tokenizer(data_.tokenizer, model_.weights(), model_.vocabulary(), context);
  if (context.open_data) tokenizer.get();
  const auto form = data_.form();
  std::vector<std::string> classes = form.classes;
  std::optional<TextSplits> splits;
  if (context.open_data) {
    splits = open_text_rows(data_);
    classes = splits->train.classes();
    if (context.metadata.is_object() && context.metadata.value("class_names", Json(classes)) != Json(classes))
      throw DataError(
          "the classes of the training rows are not those that this run was trained with; name them in "
          "`data.classes`, or start a run from this one's weights: --set initial.weights=RUN");
  } else if (context.metadata.is_object() && context.metadata.contains("class_names")) {
    classes = context.metadata["class_names"].get<std::vector<std::string>>();
  }
  if (!form.numbers && classes.size() < 2) classes = {"0", "1"};  // where sizes alone are asked for
  if (options_.metric == TextMetric::kF1 && classes.size() != 2)
    throw ConfigError(
        format("`task.metric` is \"f1\", which is for two classes; there are {}", classes.size()));
  const auto model_input = input(tokenizer.vocabulary(), form.numbers ? 1 : std::ssize(classes));
  model_.validate(model_input);
  return std::make_unique<TextClassification>(options_, data_, std::move(tokenizer), model_.make(model_input),
                                              std::move(classes), std::move(splits));
}

}  // namespace stoa
