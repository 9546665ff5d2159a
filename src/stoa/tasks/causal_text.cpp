#include "stoa/tasks/causal_text.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/keep_packed.h"
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
  CausalText(CausalTextOptions options, Parts parts) : CorpusTask(std::move(parts)), options_(options) {}

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
  v.group("generate", generate, "how `stoa predict` continues a text");
}

void CausalTextOptions::validate() const {
  generate.validate();
}

CausalTextRecipe::CausalTextRecipe(TextModelRecipe model)
    : CorpusRecipe(TextObjective::kCausal, std::move(model)) {}

std::unique_ptr<Task> CausalTextRecipe::make(CorpusTask::Parts parts) const {
  return std::make_unique<CausalText>(options_, std::move(parts));
}

}  // namespace stoa
