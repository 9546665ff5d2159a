#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "stoa/base/json.h"

namespace stoa {

/// A sentence, or two, with what is to be learned of it.
struct LabelledText {
  std::string first, second;  ///< `second` is empty where rows have one sentence
  double label = 0;           ///< number of the class, or the value of a regression; 0 where there is none
};

/// How a table of sentences is laid out.
struct TextTableForm {
  std::vector<std::string> columns;  ///< of a table without header; empty: its first line names them
  std::string first = "sentence";    ///< column of the (first) sentence
  std::string second;                ///< of the second one; empty for none
  std::string label = "label";       ///< empty for rows without labels
  bool numbers = false;              ///< labels are numbers to be predicted; otherwise classes
  std::vector<std::string> classes;  ///< labels in the order of their classes; empty: as found, sorted
  bool json_lines = false;           ///< an object a line, with the columns as members
  bool skip_bad = false;             ///< rows that do not fit are counted and left out

  bool pair() const { return !second.empty(); }
};

struct LabelledTexts {
  std::vector<LabelledText> rows;
  std::vector<std::string> classes;
  std::int64_t skipped = 0;
  std::string skipped_for;  ///< what was wrong with the first row left out
};

/// Reads a table: tab-separated without quotes, or JSON lines. Empty lines are passed over. Throws DataError
/// naming `where` and line for a missing column, a wrong number of fields, an empty sentence (in rows with
/// labels), an unknown label, text that is not UTF-8.
LabelledTexts parse_labelled_texts(std::string_view text, const std::string& where,
                                   const TextTableForm& form);

/// The same of a file, plain or gzip; one whose name ends in .jsonl, .ndjson or .json (before .gz) holds JSON
/// lines.
LabelledTexts read_labelled_texts(const std::filesystem::path& file, TextTableForm form);

/// Sentences to be judged, one row a line: the sentence (two with a tab between), a JSON object of the
/// form's columns, or the columns of a table whose first line names them, other columns beside them or not.
/// No line may be empty, so that each has its answer. Throws DataError naming `where` and line.
std::vector<LabelledText> parse_sentences(std::string_view text, const std::string& where,
                                          const TextTableForm& form);

/// One line of JSON lines. Throws DataError where it is no JSON object, or nested deeper than a few levels.
Json parse_json_line(std::string_view line, const std::string& where);

}  // namespace stoa
