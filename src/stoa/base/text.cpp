#include "stoa/base/text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

#include "stoa/base/format.h"

namespace stoa {

namespace {

// Spellings that people mix up freely: capitals, and `-` for `_`.
std::string folded(std::string_view word) {
  std::string result(word);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '-') c = '_';
  }
  return result;
}

}  // namespace

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before.swap(above);
    above.swap(row);
    row[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int replaced = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, replaced});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  int best_distance = 0;
  for (const std::string& candidate : candidates) {
    const std::size_t longest = std::max(word.size(), candidate.size());
    const int allowed = longest < 2 ? 0 : std::max(1, static_cast<int>(longest) / 3);
    const int distance = edit_distance(folded(word), folded(candidate));
    if (distance > allowed || (!best.empty() && distance >= best_distance)) continue;
    best = candidate;
    best_distance = distance;
  }
  return best;
}

std::string suggestion(std::string_view word, const std::vector<std::string>& candidates) {
  if (const std::string near = nearest(word, candidates); !near.empty())
    return format("; did you mean `{}`?", near);
  return "; known: " + (candidates.empty() ? "none" : join(candidates, ", "));
}

std::string join(const std::vector<std::string>& items, std::string_view separator) {
  std::string result;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) result += separator;
    result += items[i];
  }
  return result;
}

std::string thousands(std::int64_t value) {
  std::string text = std::to_string(value);
  const std::ptrdiff_t first = value < 0 ? 1 : 0;
  for (std::ptrdiff_t at = std::ssize(text) - 3; at > first; at -= 3)
    text.insert(static_cast<std::size_t>(at), ",");
  return text;
}

std::string duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e15) return "?";
  const std::int64_t total = std::llround(seconds);
  if (total < 60) return format("{} s", total);
  if (total < 3600) return format("{}:{:02}", total / 60, total % 60);
  return format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
}

std::string bytes(double count) {
  constexpr std::array kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (std::abs(count) < 1024) return format("{:.0f} B", count);
  std::size_t unit = 0;
  count /= 1024;
  // 1023.95 would be shown as 1024.0
  for (; std::abs(count) >= 1023.95 && unit + 1 < kUnits.size(); ++unit) count /= 1024;
  return format("{:.1f} {}", count, kUnits[unit]);
}

}  // namespace stoa
