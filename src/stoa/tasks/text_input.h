#pragma once

#include <string>
#include <vector>

namespace stoa {

/// What `stoa predict` was given for a text task, as text.
struct TextInput {
  std::string text;
  std::string where;  ///< in front of messages: a file's name, "standard input" or "the text"
};

/// Reads an input: "-" is the standard input, the name of a file (plain or gzip) its content, anything else
/// is the text itself. Throws IoError for what looks like a file's name (no blanks, but a slash or the ending
/// of a table) and is none.
TextInput read_text_input(const std::string& input);

/// The lines of a text, without their ends; what follows the last end counts unless it is empty.
std::vector<std::string> lines_of(const std::string& text);

}  // namespace stoa
