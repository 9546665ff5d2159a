#include "stoa/tasks/question_answering.h"

#include <ATen/ATen.h>
#include <torch/types.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/progress.h"
#include "stoa/data/find.h"
#include "stoa/metrics/answers.h"
#include "stoa/tasks/classification_exhibits.h"
#include "stoa/tasks/task_tokenizer.h"
#include "stoa/tasks/text_input.h"
#include "stoa/train/evaluation_rounds.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kWindowsOfAnAnswer = 32;  // that predict() passes through the model at once
constexpr std::size_t kMistakes = 20;            // that a report shows
constexpr double kNever = -1e30;                 // the score of a place in the padding

fs::path find_file(const QuestionDataOptions& options, bool train) {
  const bool second = options.format == QuestionFormat::kSquad2;
  const std::string& named = train ? options.train : options.dev;
  const std::string name =
      !named.empty() ? named : format("{}-v{}.json", train ? "train" : "dev", second ? "2.0" : "1.1");
  const fs::path folder = find_data(options.path);
  for (const fs::path& file : {folder / name, folder / (name + ".gz")})
    if (fs::is_regular_file(file)) return file;
  throw DataError(format("{}: there is no such file, nor {}.gz; correct `data.path` or `data.{}`",
                         (folder / name).string(), name, train ? "train" : "dev"));
}

SquadData read_questions(const QuestionDataOptions& options, bool train) {
  const auto file = find_file(options, train);
  auto data = read_squad(file);
  if (data.moved > 0)
    log_info(
        format("{}: {} answers were a little off their place and were moved", file.string(), data.moved));
  if (data.lost > 0)
    log_warning(format("{}: {} answers are not where the file says and are not trained on", file.string(),
                       data.lost));
  return data;
}

/// The questions of a run, cut into windows when they are first needed.
struct QuestionSet {
  std::optional<SquadData> data;  // until they are cut
  std::optional<SquadWindows> windows;

  SquadWindows& cut(TaskTokenizer& tokenizer, const SquadWindowOptions& options) {
    if (!windows) {
      if (!data) throw Error("this task was built without its data");
      windows.emplace(std::move(*data), tokenizer.get(), options);
      data.reset();
    }
    return *windows;
  }
};

class QuestionAnswering : public Task, public SharesEvaluation {
 public:
  QuestionAnswering(const QuestionAnsweringOptions& options, QuestionDataOptions data,
                    TaskTokenizer tokenizer, std::shared_ptr<TextModel> model, QuestionSet train,
                    QuestionSet dev)
      : data_(std::move(data)),
        tokenizer_(std::move(tokenizer)),
        model_(std::move(model)),
        rules_{options.n_best, options.max_answer_length, data_.format == QuestionFormat::kSquad2,
               options.null_threshold},
        train_(std::move(train)),
        dev_(std::move(dev)) {
    if (train_.data) trained_on_ = train_.cut(tokenizer_, data_.windows).trainable();
  }

  torch::nn::Module& model() override { return *model_; }
  nn::ModelDescription describe() override { return model_->describe(); }
  void load_pretrained() override { model_->load_pretrained(); }
  std::int64_t train_samples() const override {
    if (!train_.windows) throw Error("this task was built without its data");
    return std::ssize(trained_on_);
  }
  std::string primary_metric() const override { return "f1"; }
  Json metadata() const override { return {{"tokenizer", tokenizer_.metadata()}}; }
  void save_files(const fs::path& folder) override { tokenizer_.save(folder); }
  void save_pretrained(const fs::path& folder) override {
    model_->save_pretrained(folder);
    tokenizer_.get()->save(folder);
  }

  std::unique_ptr<BatchSource> train_batches(const BatchPlan& plan) override {
    const auto& windows = train_.cut(tokenizer_, data_.windows);
    return shuffled_batches(train_samples(), plan, [this, &windows](const std::vector<SampleKey>& keys) {
      std::vector<std::int64_t> numbers;
      for (const auto& key : keys) numbers.push_back(trained_on_[static_cast<std::size_t>(key.index)]);
      return windows.batch(numbers);
    });
  }

  /// Mean cross-entropy of the first and the last place over the places of each window.
  LossResult loss(const Batch& batch, const StepContext&) override {
    auto scored = score(batch);
    const auto padded = scored.tokens.unpack(scored.scores, kNever);  // [batch, longest, 2]
    const auto first = padded.select(2, 0), last = padded.select(2, 1);
    const auto spans = batch["spans"];
    const auto true_first = spans.select(1, 0), true_last = spans.select(1, 1);
    LossResult result;
    result.loss = (at::cross_entropy_loss(first, true_first) + at::cross_entropy_loss(last, true_last)) / 2;
    const auto right =
        first.detach().argmax(1).eq(true_first).logical_and(last.detach().argmax(1).eq(true_last));
    result.metrics.push_back({"accuracy", right.to(at::kFloat).mean()});
    result.side = std::move(scored.side);
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
    at::Tensor scores;  // [tokens, 2], fp32 at least
    nn::PackedTokens tokens;
    nn::SideOutputs side;
  };

  Scored score(const Batch& batch) {
    auto tokens = nn::pack_tokens(batch["ids"], batch["lengths"], batch["segments"]);
    auto output = model_->forward(tokens);
    auto scores = model_->span_scores(output.hidden);
    if (scores.scalar_type() != at::kDouble) scores = scores.to(at::kFloat);
    return {scores, std::move(tokens), std::move(output.side)};
  }
  double find_answers(const SquadWindows& windows, EvaluationRounds rounds, AnswerFinder& finder,
                      const EvaluateOptions& options = {}, StatisticsMean* statistics = nullptr);
  Exhibit mistakes(const SquadWindows& windows, const std::vector<metrics::Answered>& answers) const;

  QuestionDataOptions data_;
  TaskTokenizer tokenizer_;
  std::shared_ptr<TextModel> model_;
  AnswerRules rules_;
  QuestionSet train_, dev_;
  std::vector<std::int64_t> trained_on_;  // numbers of windows
};

/// Gives a batch's windows to the finder. Returns the sum of the logarithms of what is right.
double add_windows(const BatchAnswer& answer, AnswerFinder& finder) {
  const auto &scores = answer.tensors[0], &offsets = answer.tensors[1], &spans = answer.tensors[2],
             &windows = answer.tensors[3];
  double sum = 0;
  for (std::int64_t i = 0; i < answer.samples; ++i) {
    const auto begin = offsets[i].item<std::int64_t>();
    const auto own = scores.slice(1, begin, offsets[i + 1].item<std::int64_t>());
    const auto logs = own.to(at::kDouble).log_softmax(1);
    for (std::int64_t side = 0; side < 2; ++side)
      sum += logs[side][spans[i][side].item<std::int64_t>()].item<double>() / 2;
    const auto* const first = scores.const_data_ptr<float>() + begin;
    finder.add(windows[i].item<std::int64_t>(), first, first + scores.size(1));
  }
  return sum;
}

/// Gives all windows to the finder, in batches of like lengths. Returns the mean loss of a window.
double QuestionAnswering::find_answers(const SquadWindows& windows, EvaluationRounds rounds,
                                       AnswerFinder& finder, const EvaluateOptions& options,
                                       StatisticsMean* statistics) {
  const at::NoGradGuard no_gradients;
  const bool was_training = model_->is_training();
  model_->eval();
  const auto device = model_->parameters().front().device();
  std::vector<std::int64_t> order(static_cast<std::size_t>(windows.size()));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](std::int64_t number) { return windows.length(number); });
  auto batches = ordered_batches(windows.size(), rounds.plan(), [&](const std::vector<SampleKey>& keys) {
    std::vector<std::int64_t> numbers;
    for (const auto& key : keys) numbers.push_back(order[static_cast<std::size_t>(key.index)]);
    return windows.batch(numbers);
  });
  if (options.progress) options.progress(0, windows.size());
  double loss = 0;
  for (auto batch = batches->next(); batch.samples > 0; batch = batches->next()) {
    const auto scored = score(batch.to(device));
    const auto own = scored.scores.to(at::kCPU, at::kFloat).t().contiguous();  // [2, tokens]
    for (const auto& answer : rounds.share({own, scored.tokens.offsets, batch["spans"], batch["windows"]},
                                           scored.side.statistics)) {
      loss -= add_windows(answer, finder);
      if (statistics != nullptr) statistics->add(answer.statistics, answer.samples);
    }
    if (options.progress) options.progress(rounds.done(), windows.size());
  }
  model_->train(was_training);
  return loss / static_cast<double>(windows.size());
}

Evaluation QuestionAnswering::evaluate(const EvaluateOptions& options) {
  const auto& windows = dev_.cut(tokenizer_, data_.windows);
  AnswerFinder finder(windows, rules_);
  StatisticsMean statistics;
  const double loss = find_answers(windows, rounds(windows.size(), options.batch_size, options.workers),
                                   finder, options, &statistics);
  std::vector<metrics::Answered> answers;
  for (std::int64_t q = 0; q < std::ssize(windows.data().questions); ++q) {
    const auto found = finder.answer(q);
    metrics::Answered answered;
    answered.answer = found.text;
    answered.no_answer = found.none_by;
    if (!found.best.empty()) answered.best = finder.text(q, found.best.front());
    for (const auto& right : windows.data().questions[static_cast<std::size_t>(q)].answers)
      answered.right.push_back(right.text);
    answers.push_back(std::move(answered));
  }
  const auto results = metrics::score_answers(answers);
  Evaluation evaluation;
  evaluation.metrics = {{"f1", results.f1}, {"exact", results.exact}};
  if (rules_.may_be_none)
    for (const auto& [name, value] : {std::pair{"has_answer_f1", results.has_answer_f1},
                                      {"has_answer_exact", results.has_answer_exact},
                                      {"no_answer", results.no_answer},
                                      {"best_f1", results.best_f1},
                                      {"best_f1_threshold", results.best_f1_threshold},
                                      {"best_exact", results.best_exact},
                                      {"best_exact_threshold", results.best_exact_threshold}})
      evaluation.metrics.set(name, value);
  evaluation.metrics.set("loss", loss);
  if (!options.exhibits) return evaluation;
  evaluation.exhibits.push_back(mistakes(windows, answers));
  for (auto& exhibit : model_->exhibits(statistics.means()))
    evaluation.exhibits.push_back(std::move(exhibit));
  return evaluation;
}

Exhibit QuestionAnswering::mistakes(const SquadWindows& windows,
                                    const std::vector<metrics::Answered>& answers) const {
  const auto shown = [](const std::string& text) { return text.empty() ? std::string("(none)") : text; };
  TableExhibit table;
  table.headings = {"question", "answer", "right"};
  for (std::size_t q = 0; q < answers.size() && table.rows.size() < kMistakes; ++q) {
    const auto& right = answers[q].right;
    const auto same = [&](const std::string& text) {
      return metrics::exact_match(answers[q].answer, text) > 0;
    };
    if (right.empty() ? answers[q].answer.empty() : std::ranges::any_of(right, same)) continue;
    table.rows.push_back({windows.data().questions[q].text, shown(answers[q].answer),
                          shown(right.empty() ? std::string() : right.front())});
  }
  return {"Mistakes", "The first questions whose answer is none of the right ones.", table};
}

std::vector<Prediction> QuestionAnswering::predict(std::span<const std::string> inputs) {
  std::vector<Prediction> predictions;
  for (const auto& input : inputs) {
    const auto [text, where] = read_text_input(input);
    const SquadWindows windows(parse_questions(text, where), tokenizer_.get(), data_.windows);
    AnswerFinder finder(windows, rules_);
    find_answers(windows, {windows.size(), kWindowsOfAnAnswer, 0}, finder);
    Prediction prediction;
    prediction.json["answers"] = Json::array();
    for (std::int64_t q = 0; q < std::ssize(windows.data().questions); ++q) {
      const auto& asked = windows.data().questions[static_cast<std::size_t>(q)];
      const auto found = finder.answer(q);
      Json answer = {{"id", asked.id}, {"answer", found.text}, {"probability", found.probability}};
      if (found.begin >= 0) {  // in code points, as the data have it
        const auto starts =
            code_point_offsets(windows.data().contexts[static_cast<std::size_t>(asked.context)]);
        const auto place = std::ranges::upper_bound(starts, static_cast<std::size_t>(found.begin)) - 1;
        answer["answer_start"] = place - starts.begin();
      }
      if (rules_.may_be_none) answer["no_answer_by"] = found.none_by;
      prediction.json["answers"].push_back(std::move(answer));
      std::string line = found.text;
      std::ranges::replace_if(
          line, [](char c) { return c == '\n' || c == '\r' || c == '\t'; }, ' ');
      prediction.text += format("{}\t{:.4f}\n", line, found.probability);
    }
    predictions.push_back(std::move(prediction));
  }
  return predictions;
}

std::vector<std::string> QuestionAnswering::save_predictions(const fs::path& folder,
                                                             const EvaluateOptions& options) {
  const auto& windows = dev_.cut(tokenizer_, data_.windows);
  AnswerFinder finder(windows, rules_);
  find_answers(windows, {windows.size(), options.batch_size, options.workers}, finder);
  Json answers = Json::object(), best = Json::object(), none = Json::object();
  for (std::int64_t q = 0; q < std::ssize(windows.data().questions); ++q) {
    const auto& id = windows.data().questions[static_cast<std::size_t>(q)].id;
    const auto found = finder.answer(q);
    answers[id] = found.text;
    none[id] = found.none_by;
    best[id] = Json::array();
    for (const auto& span : found.best)
      best[id].push_back({{"text", finder.text(q, span)},
                          {"probability", span.probability},
                          {"start_logit", span.first_score},
                          {"end_logit", span.last_score}});
  }
  fs::create_directories(folder);
  std::vector<std::string> files;
  const auto write = [&](const char* name, const Json& json) {
    write_file_atomically(folder / name, json.dump(1) + "\n");
    files.push_back((folder / name).string());
  };
  write("predictions.json", answers);
  write("nbest_predictions.json", best);
  if (rules_.may_be_none) write("null_odds.json", none);
  return files;
}

Batch QuestionAnswering::example(std::int64_t samples) {
  const auto length = data_.windows.length;
  const auto ids = at::arange(samples * length).mul(7919).remainder(tokenizer_.vocabulary());
  Batch batch;
  batch.samples = samples;
  batch.tensors["ids"] = ids.view({samples, length});
  batch.tensors["segments"] = at::zeros({samples, length}, at::kLong);
  batch.tensors["lengths"] = at::full({samples}, length, at::kLong);
  return batch;
}

void QuestionAnswering::save_examples(const fs::path& folder, std::int64_t count) {
  const auto& data = dev_.cut(tokenizer_, data_.windows).data();
  std::string lines;
  for (std::int64_t q = 0; q < std::min(count, std::ssize(data.questions)); ++q) {
    const auto& asked = data.questions[static_cast<std::size_t>(q)];
    lines += Json{{"id", asked.id},
                  {"question", asked.text},
                  {"context", data.contexts[static_cast<std::size_t>(asked.context)]}}
                 .dump() +
             "\n";
  }
  fs::create_directories(folder);
  write_file_atomically(folder / "examples.jsonl", lines);
}

void at_least(const char* key, std::int64_t value, std::int64_t least) {
  if (value < least) throw ConfigError(format("`{}` is {}; it must be at least {}", key, value, least));
}

}  // namespace

void QuestionDataOptions::visit(FieldVisitor& v) {
  v.choice("format", format, {{"squad1", QuestionFormat::kSquad1}, {"squad2", QuestionFormat::kSquad2}},
           "squad1: SQuAD 1.1, each question has an answer; squad2: 2.0, some have none");
  v.field("path", path, "folder of the files; a relative one is also looked for below $STOA_DATA");
  v.field("train", train, "file of the training questions; empty takes the published name");
  v.field("dev", dev, "file of the questions to evaluate on; likewise");
  v.field("tokenizer", tokenizer,
          "vocab.txt, tokenizer.json, SentencePiece .model, a folder with one, or \"bytes\"; empty takes the "
          "one beside the model's weights");
  v.field("length", windows.length, "tokens of a window: question, part of the context and marks");
  v.field("stride", windows.stride, "tokens between the beginnings of a context's windows");
  v.field("question_length", windows.question_length, "tokens that are kept of a question");
}

void QuestionDataOptions::validate() const {
  if (path.empty()) throw ConfigError("`data.path` is not set; name the folder of the data");
  at_least("data.stride", windows.stride, 1);
  at_least("data.question_length", windows.question_length, 1);
  // what is left for the context must reach from one window to the next
  const auto least = windows.question_length + windows.stride + 3;
  if (windows.length < least)
    throw ConfigError(
        stoa::format("`data.length` is {}; {} of a question, {} of context and 3 marks need at least {}",
                     windows.length, windows.question_length, windows.stride, least));
}

void QuestionAnsweringOptions::visit(FieldVisitor& v) {
  v.field("n_best", n_best, "first and last tokens tried in a window, and answers kept of a question");
  v.field("max_answer_length", max_answer_length, "tokens of the longest answer");
  v.field("null_threshold", null_threshold,
          "squad2: none is answered where its score is above the best answer's by more than this");
}

void QuestionAnsweringOptions::validate() const {
  at_least("task.n_best", n_best, 1);
  at_least("task.max_answer_length", max_answer_length, 1);
}

TextModelInput QuestionAnsweringRecipe::input(std::int64_t vocabulary) const {
  TextModelInput input;
  input.vocabulary = vocabulary;
  input.length = data_.windows.length;
  input.head = TextHead::kSpans;
  return input;
}

void QuestionAnsweringRecipe::visit(FieldVisitor& v) {
  v.group("task", options_, "what is learned");
  v.group("data", data_, "the questions");
  v.enter("model", "the model");
  model_.visit(v);
  v.leave();
}

void QuestionAnsweringRecipe::validate() const {
  data_.validate();
  options_.validate();
  model_.validate(input(model_.vocabulary() > 0 ? model_.vocabulary() : kUsualVocabulary));
}

std::unique_ptr<Task> QuestionAnsweringRecipe::build(const BuildContext& context) {
  TaskTokenizer tokenizer(data_.tokenizer, model_.weights(), model_.vocabulary(), context);
  QuestionSet train, dev;
  if (context.open_data) {
    tokenizer.get();
    train.data = read_questions(data_, true);
    dev.data = read_questions(data_, false);
  }
  const auto model_input = input(tokenizer.vocabulary());
  model_.validate(model_input);
  return std::make_unique<QuestionAnswering>(options_, data_, std::move(tokenizer), model_.make(model_input),
                                             std::move(train), std::move(dev));
}

}  // namespace stoa
