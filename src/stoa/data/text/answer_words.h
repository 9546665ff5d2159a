#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace stoa {

/// The words of an answer as SQuAD's official program compares them: lower case, ASCII punctuation removed,
/// "a", "an" and "the" taken out where they stand alone, cut at white space. UTF-8; what is not counts as
/// U+FFFD.
std::vector<std::string> answer_words(std::string_view text);

}  // namespace stoa
