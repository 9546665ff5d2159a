#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace stoa {

/// An answer and the bytes [begin, end) of the context that it is.
struct SquadAnswer {
  std::string text;
  std::int64_t begin = 0, end = 0;  ///< both -1 where the text is not near the place the file gives
};

struct SquadQuestion {
  std::string id, text;
  std::int64_t context = 0;          ///< place among the contexts
  std::vector<SquadAnswer> answers;  ///< empty where there is none, or where none is known
  bool impossible = false;           ///< the context does not hold an answer (SQuAD 2.0)
};

/// Questions about paragraphs.
struct SquadData {
  std::vector<std::string> contexts;
  std::vector<SquadQuestion> questions;
  std::int64_t moved = 0;  ///< answers that were a few characters off
  std::int64_t lost = 0;   ///< answers that are not where the file says, nor near
};

/// Reads a file of SQuAD 1.1 or 2.0: data[].paragraphs[].{context, qas[].{id, question, answers[].{text,
/// answer_start}, is_impossible}}; `answer_start` counts Unicode code points. An answer up to two code points
/// off its place is moved there. Throws DataError naming `where`, the question and what is wrong: members
/// that are missing or of another type, an answer outside its context, an id twice.
SquadData parse_squad(std::string_view json, const std::string& where);

/// The same of a file, plain or gzip.
SquadData read_squad(const std::filesystem::path& file);

/// Questions to be answered, one a line: a JSON object {"question", "context"}, perhaps with "id", or
/// question and context with a tab between. Or one whole JSON document of SQuAD's form. Questions without id
/// are numbered from 0. Throws DataError naming `where` and line.
SquadData parse_questions(std::string_view text, const std::string& where);

/// Byte at which each Unicode code point of UTF-8 text begins, and the size of the text at the end.
std::vector<std::size_t> code_point_offsets(std::string_view text);

}  // namespace stoa
