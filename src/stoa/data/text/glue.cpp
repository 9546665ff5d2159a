#include "stoa/data/text/glue.h"

#include <algorithm>
#include <map>
#include <optional>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr double kHighestSimilarity = 5;  // of STS-B

TextTableForm labelled(const std::string& first, const std::string& second, const std::string& label,
                       const std::vector<std::string>& classes) {
  TextTableForm form;
  form.first = first;
  form.second = second;
  form.label = label;
  form.classes = classes;
  form.numbers = classes.empty();
  return form;
}

/// A task whose test rows have the sentences under the names that training rows have.
GlueLayout layout(const std::string& name, const TextTableForm& form) {
  GlueLayout result{name, form, form, {{"dev", ""}}, {{"test", name}}};
  result.tests.label.clear();
  return result;
}

std::map<GlueTask, GlueLayout> make_layouts() {
  const std::vector<std::string> binary = {"0", "1"}, entailment = {"entailment", "not_entailment"};
  std::map<GlueTask, GlueLayout> all;
  auto& cola = all[GlueTask::kCola] = layout("CoLA", labelled("sentence", "", "label", binary));
  cola.form.columns = {"source", "label", "mark", "sentence"};  // its test file alone has a header
  all[GlueTask::kSst2] = layout("SST-2", labelled("sentence", "", "label", binary));
  all[GlueTask::kMrpc] = layout("MRPC", labelled("#1 String", "#2 String", "Quality", binary));
  all[GlueTask::kStsb] = layout("STS-B", labelled("sentence1", "sentence2", "score", {}));
  auto& qqp = all[GlueTask::kQqp] = layout("QQP", labelled("question1", "question2", "is_duplicate", binary));
  qqp.form.skip_bad = true;  // some published rows break off
  auto& mnli = all[GlueTask::kMnli] = layout(
      "MNLI", labelled("sentence1", "sentence2", "gold_label", {"contradiction", "entailment", "neutral"}));
  mnli.dev = {{"dev_matched", ""}, {"dev_mismatched", "mismatched"}};
  mnli.test = {{"test_matched", "MNLI-m"}, {"test_mismatched", "MNLI-mm"}, {"diagnostic", "AX"}};
  all[GlueTask::kQnli] = layout("QNLI", labelled("question", "sentence", "label", entailment));
  all[GlueTask::kRte] = layout("RTE", labelled("sentence1", "sentence2", "label", entailment));
  all[GlueTask::kWnli] = layout("WNLI", labelled("sentence1", "sentence2", "label", binary));
  return all;
}

std::optional<fs::path> look_for(const fs::path& folder, const GlueLayout& layout, const std::string& name) {
  for (const fs::path& place : {folder / layout.name, folder, folder / name, folder.parent_path() / name})
    for (const char* const ending : {".tsv", ".tsv.gz"})
      if (const auto file = place / (name + ending); fs::is_regular_file(file)) return file;
  return std::nullopt;
}

}  // namespace

const GlueLayout& glue_layout(GlueTask task) {
  static const auto layouts = make_layouts();
  return layouts.at(task);
}

fs::path find_glue_file(const fs::path& folder, const GlueLayout& layout, const std::string& name) {
  if (const auto file = look_for(folder, layout, name)) return *file;
  throw DataError(
      format("{}: there is no {}.tsv or {}.tsv.gz, nor in {}; name the folder of {} or of all of "
             "GLUE in data.path",
             folder.string(), name, name, (folder / layout.name).string(), layout.name));
}

bool has_glue_file(const fs::path& folder, const GlueLayout& layout, const std::string& name) {
  return look_for(folder, layout, name).has_value();
}

std::string glue_submission(const GlueLayout& layout, std::span<const double> predictions) {
  std::string text = "index\tprediction\n";
  for (std::size_t i = 0; i < predictions.size(); ++i) {
    text += format("{}\t", i);
    text += layout.form.numbers ? format("{:.3f}", std::clamp(predictions[i], 0.0, kHighestSimilarity))
                                : layout.form.classes.at(static_cast<std::size_t>(predictions[i]));
    text += '\n';
  }
  return text;
}

}  // namespace stoa
