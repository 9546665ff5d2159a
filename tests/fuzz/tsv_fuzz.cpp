#include "fuzz/fuzz.h"
#include "stoa/data/text/glue.h"
#include "stoa/data/text/labelled_text.h"
#include "stoa/data/text/squad.h"
#include "stoa/data/text/tsv.h"

namespace {

void touch(std::string_view text) {
  stoa::fuzz::touch({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

/// Tables of sentences: all their labels must be classes or finite numbers.
void parse_table(std::string_view text, const stoa::TextTableForm& form) {
  stoa::fuzz::refusing([&] {
    const auto texts = stoa::parse_labelled_texts(text, "input", form);
    for (const auto& row : texts.rows) {
      touch(row.first);
      touch(row.second);
      if (form.numbers || form.label.empty()) continue;
      stoa::fuzz::require(row.label >= 0 && row.label < static_cast<double>(texts.classes.size()));
    }
  });
  stoa::fuzz::refusing([&] {
    for (const auto& row : stoa::parse_sentences(text, "input", form)) touch(row.first);
  });
}

/// Questions: all answers must lie in their contexts, or be known to be lost.
void parse_squad(std::string_view text) {
  const auto check = [](const stoa::SquadData& data) {
    for (const auto& question : data.questions) {
      const auto& context = data.contexts.at(static_cast<std::size_t>(question.context));
      for (const auto& answer : question.answers) {
        if (answer.begin < 0) continue;
        stoa::fuzz::require(
            context.compare(static_cast<std::size_t>(answer.begin), answer.text.size(), answer.text) == 0);
      }
    }
  };
  stoa::fuzz::refusing([&] { check(stoa::parse_squad(text, "input")); });
  stoa::fuzz::refusing([&] { check(stoa::parse_questions(text, "input")); });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using stoa::GlueTask;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const auto task :
       {GlueTask::kCola, GlueTask::kSst2, GlueTask::kStsb, GlueTask::kQqp, GlueTask::kRte}) {
    parse_table(text, stoa::glue_layout(task).form);
    parse_table(text, stoa::glue_layout(task).tests);
  }
  stoa::TextTableForm form;
  parse_table(text, form);
  form.json_lines = true;
  parse_table(text, form);
  parse_squad(text);
  return 0;
}
