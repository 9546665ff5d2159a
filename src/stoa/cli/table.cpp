#include "stoa/cli/table.h"

#include <algorithm>

namespace stoa::cli {

namespace {

std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

std::string text_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::size_t full = 0;
  for (const std::size_t width : widths) full += width + (full > 0 ? 2 : 0);

  std::string text;
  const std::string rule = std::string(full, '-') + "\n";
  for (const auto& row : rows) {
    if (row.empty()) {
      text += rule;
      continue;
    }
    std::string line = row[0] + std::string(widths[0] - width_of(row[0]), ' ');
    for (std::size_t i = 1; i < row.size(); ++i)
      line += "  " + std::string(widths[i] - width_of(row[i]), ' ') + row[i];
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
    if (&row == &rows.front()) text += rule;
  }
  return text;
}

}  // namespace stoa::cli
