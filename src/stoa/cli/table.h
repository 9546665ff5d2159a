#pragma once

#include <string>
#include <vector>

namespace stoa::cli {

/// Rows of cells as lines of text for a terminal: the first column flush left, the others flush right, two
/// spaces between, a rule below the headings (the first row). An empty row draws a rule. Counts UTF-8
/// characters.
std::string text_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace stoa::cli
