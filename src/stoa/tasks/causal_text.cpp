#include "stoa/tasks/causal_text.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/keep_packed.h"
#include "stoa/tasks/corpus_task.h"
#include "stoa/tasks/text_input.h"

namespace stoa {
namespace {

constexpr std::int64_t kExampleTokens = 32;

/// On one line.
std::string escaped(const std::string& text) {
  std::string line;
  for (const char c : text)
    if (c == '\n')
      line += "\\n";
    else if (c != '\r')
      line += c;
  return line;
}

class CausalText : public CorpusTask {
 public:
  CausalText(CausalTextOptions options, TextDataOptions data, TaskTokenizer tokenizer,
             std::shared_ptr<TextModel> model, const BuildContext& context)
      : CorpusTask(std::move(data), options.label_smoothing, std::move(tokenizer), std::move(model), context),
        options_(options) {}

  std::vector<Prediction> predict(std::span<const std::string> inputs) override;

 private:
  /// How a window begins.
  std::string example_line(const Batch& batch) override {
    std::vector<std::int32_t> ids;
    const auto most = std::min(kExampleTokens, batch["lengths"][0].item<std::int64_t>());
    for (std::int64_t i = 0; i < most; ++i) ids.push_back(batch["ids"][0][i].item<std::int32_t>());
    return escaped(tokenizer().decode(ids));
  }
  std::string continued(const std::string& text, const std::string& where, std::uint64_t number);

  CausalTextOptions options_;
};

std::string CausalText::continued(const std::string& text, const std::string& where, std::uint64_t number) {
  auto prompt = tokenizer().encode(text);
  const auto& special = tokenizer().special();
  if (prompt.empty() && special.end >= 0)
    prompt.push_back(special.end);  // what stands in front of a document
  if (prompt.empty()) throw DataError(format("{}: an empty text cannot be continued; give it a word", where));
  RandomStream random(mix_seed({static_cast<std::uint64_t>(options_.generate.seed), number}));
  return tokenizer().decode(
      continue_tokens(text_model(), prompt, data().length, special.end, options_.generate, random));
}

std::vector<Prediction> CausalText::predict(std::span<const std::string> inputs) {
  const at::NoGradGuard no_gradients;
  const ops::KeepPacked keep_packed;
  text_model().eval();
  std::vector<Prediction> predictions;
  std::uint64_t number = 0;
  for (const auto& input : inputs) {
    const auto [text, where] = read_text_input(input);
    Prediction prediction;
    prediction.json["answers"] = Json::array();
    const bool typed = where == "the text";  // to be read by a person, line breaks and all
    for (const auto& line : typed ? std::vector<std::string>{text} : lines_of(text)) {
      const auto rest = continued(line, where, number++);
      prediction.json["answers"].push_back({{"text", line}, {"continuation", rest}});
      prediction.text += (typed ? line + rest : escaped(line + rest)) + "\n";
    }
    predictions.push_back(std::move(prediction));
  }
  return predictions;
}

}  // namespace

void CausalTextOptions::visit(FieldVisitor& v) {
  v.field("label_smoothing", label_smoothing, "share of each target spread evenly over the vocabulary");
  v.group("generate", generate, "how `stoa predict` continues a text");
}

void CausalTextOptions::validate() const {
  if (!(label_smoothing >= 0 && label_smoothing < 1))
    throw ConfigError(
        format("`task.label_smoothing` is {}; it must be at least 0 and below 1", label_smoothing));
  generate.validate();
}

CausalTextRecipe::CausalTextRecipe(TextModelRecipe model) : model_(std::move(model)) {
  data_.objective = TextObjective::kCausal;
}

void CausalTextRecipe::visit(FieldVisitor& v) {
  v.group("task", options_, "what is learned");
  v.group("data", data_, "the text");
  v.enter("model", "the model");
  model_.visit(v);
  v.leave();
}

void CausalTextRecipe::validate() const {
  options_.validate();
  data_.validate();
}

std::unique_ptr<Task> CausalTextRecipe::build(const BuildContext& context) {
  TaskTokenizer tokenizer(tokenizer_place(data_), model_.weights(), model_.vocabulary(), context);
  if (context.open_data) tokenizer.get();
  TextModelInput input;
  input.vocabulary = tokenizer.vocabulary();
  input.length = data_.length;
  input.head = TextHead::kCausal;
  model_.validate(input);
  return std::make_unique<CausalText>(options_, data_, std::move(tokenizer), model_.make(input), context);
}

}  // namespace stoa
