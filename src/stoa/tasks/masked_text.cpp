#include "stoa/tasks/masked_text.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/text/masking.h"
#include "stoa/tasks/text_input.h"

namespace stoa {
namespace {

class MaskedText : public CorpusTask {
 public:
  MaskedText(MaskedTextOptions options, Parts parts) : CorpusTask(std::move(parts)), options_(options) {}

  std::vector<Prediction> predict(std::span<const std::string> inputs) override;

 private:
  /// The first segment with its hidden places, as text.
  std::string example_line(const Batch& batch) override {
    std::vector<std::int32_t> ids;
    const auto row = batch["ids"][0];
    const auto& special = tokenizer().special();
    for (std::int64_t i = 1; i < batch["lengths"][0].item<std::int64_t>(); ++i) {
      const auto id = row[i].item<std::int32_t>();
      if (id == special.sep) break;
      ids.push_back(id);
    }
    if (std::ranges::find(ids, special.mask) == ids.end()) ids.push_back(special.mask);
    return tokenizer().decode(ids, /*skip_special=*/false);
  }
  std::vector<std::int32_t> sequence(const std::string& line, const std::string& where);
  void fill(const std::string& line, const std::string& where, Prediction& prediction);

  MaskedTextOptions options_;
};

/// [CLS] line [SEP]
std::vector<std::int32_t> MaskedText::sequence(const std::string& line, const std::string& where) {
  const auto& special = tokenizer().special();
  std::vector<std::int32_t> ids = {special.cls};
  tokenizer().encode(line, ids);
  ids.push_back(special.sep);
  if (std::ranges::find(ids, special.mask) == ids.end())
    throw DataError(format("{}: there is nothing to fill; write {} where a token is missing", where,
                           tokenizer().token(special.mask)));
  if (std::ssize(ids) > data().length)
    throw DataError(format("{}: {} tokens with the special ones, the model reads {}; shorten the line", where,
                           ids.size(), data().length));
  return ids;
}

void MaskedText::fill(const std::string& line, const std::string& where, Prediction& prediction) {
  auto ids = sequence(line, where);
  const auto tokens = nn::pack_tokens(
      at::tensor(std::vector<std::int64_t>(ids.begin(), ids.end()), at::kLong).unsqueeze(0).to(device()), {});
  const auto masked = tokens.ids.eq(tokenizer().special().mask).nonzero().squeeze(1);
  const auto shares =
      token_scores(text_model(), text_model().forward(tokens).hidden.index_select(0, masked)).softmax(1);
  const auto [probability, token] = shares.topk(std::min(options_.top, shares.size(1)));
  Json places = Json::array();
  for (std::int64_t m = 0; m < masked.numel(); ++m) {
    Json top = Json::array();
    for (std::int64_t i = 0; i < token.size(1); ++i)
      top.push_back({{"token", tokenizer().token(token[m][i].item<std::int32_t>())},
                     {"probability", probability[m][i].item<double>()}});
    places.push_back(std::move(top));
    ids[static_cast<std::size_t>(masked[m].item<std::int64_t>())] = token[m][0].item<std::int32_t>();
  }
  const auto text = tokenizer().decode(ids);
  prediction.json["answers"].push_back({{"text", text}, {"masks", std::move(places)}});
  prediction.text += text + "\n";
}

std::vector<Prediction> MaskedText::predict(std::span<const std::string> inputs) {
  const at::NoGradGuard no_gradients;
  text_model().eval();
  std::vector<Prediction> predictions;
  for (const auto& input : inputs) {
    const auto [text, where] = read_text_input(input);
    Prediction prediction;
    prediction.json["answers"] = Json::array();
    std::int64_t number = 0;
    for (const auto& line : lines_of(text)) fill(line, format("{}:{}", where, ++number), prediction);
    predictions.push_back(std::move(prediction));
  }
  return predictions;
}

}  // namespace

void MaskedTextOptions::visit(FieldVisitor& v) {
  v.field("top", top, "tokens that `stoa predict --json` names for a masked place");
}

void MaskedTextOptions::validate() const {
  if (top < 1) throw ConfigError(format("`task.top` is {}; it must be at least 1", top));
}

MaskedTextRecipe::MaskedTextRecipe(TextModelRecipe model)
    : CorpusRecipe(TextObjective::kMasked, std::move(model)) {}

std::unique_ptr<Task> MaskedTextRecipe::make(CorpusTask::Parts parts) const {
  return std::make_unique<MaskedText>(options_, std::move(parts));
}

}  // namespace stoa
