#include "stoa/data/text/sentences.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace stoa {

namespace {

constexpr std::string_view kSpace = " \t\r\n\v\f";

// Words that a point ends without ending the sentence; what follows them begins with a capital often enough.
constexpr std::array<std::string_view, 34> kAbbreviations = {
    "Mr",  "Mrs", "Ms",     "Dr",  "Prof", "St",  "Sr",   "Jr",  "Rev", "Gen",  "Col", "Capt",
    "Lt",  "Sgt", "Hon",    "Gov", "Sen",  "Rep", "vs",   "Vol", "Fig", "Figs", "cf",  "e.g",
    "i.e", "ca",  "approx", "Jan", "Feb",  "Aug", "Sept", "Oct", "Nov", "Dec"};
constexpr std::array<std::string_view, 4> kMarks = {".", "!", "?", "…"};
constexpr std::array<std::string_view, 3> kWideMarks = {"。", "！", "？"};
constexpr std::array<std::string_view, 11> kClosing = {"\"", "'", ")",  "]",  "}", "”",
                                                       "’",  "»", "」", "』", "）"};

bool is_space(char c) {
  return kSpace.find(c) != std::string_view::npos;
}

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// Length of the one of `marks` that stands at `at`; 0 for none.
template <std::size_t N>
std::size_t mark_at(std::string_view text, std::size_t at, const std::array<std::string_view, N>& marks) {
  for (const std::string_view mark : marks)
    if (text.substr(at).starts_with(mark)) return mark.size();
  return 0;
}

/// Whether the point at `at` belongs to the word before it.
bool ends_abbreviation(std::string_view text, std::size_t at) {
  std::size_t begin = at;
  while (begin > 0 && (is_letter(text[begin - 1]) || text[begin - 1] == '.')) --begin;
  const std::string_view word = text.substr(begin, at - begin);
  if (word.empty()) return false;
  const bool bare = begin == 0 || static_cast<unsigned char>(text[begin - 1]) < 0x80;
  if (word.size() == 1) return bare && word[0] >= 'A' && word[0] <= 'Z' && word[0] != 'I';
  return bare && std::ranges::find(kAbbreviations, word) != kAbbreviations.end();
}

}  // namespace

std::string_view without_outer_space(std::string_view text) {
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::vector<std::string_view> split_sentences(std::string_view paragraph) {
  const std::string_view text = without_outer_space(paragraph);
  std::vector<std::string_view> sentences;
  std::size_t begin = 0;
  const auto add = [&](std::size_t end) {
    const std::string_view sentence = without_outer_space(text.substr(begin, end - begin));
    if (!sentence.empty()) sentences.push_back(sentence);
    begin = end;
  };
  for (std::size_t at = 0; at < text.size();) {
    std::size_t length = mark_at(text, at, kWideMarks);
    const bool wide = length > 0;
    if (!wide) length = mark_at(text, at, kMarks);
    if (length == 0) {
      ++at;
      continue;
    }
    const bool abbreviated = text[at] == '.' && ends_abbreviation(text, at);
    std::size_t end = at + length, marks = 1;
    const auto skip = [&](const auto& kinds, bool counted) {
      for (std::size_t more; end < text.size() && (more = mark_at(text, end, kinds)) > 0; end += more)
        marks += counted ? 1 : 0;
    };
    skip(kMarks, true);
    skip(kWideMarks, true);
    const std::size_t unclosed = end;
    skip(kClosing, false);
    std::size_t next = end;
    while (next < text.size() && is_space(text[next])) ++next;
    const bool apart = wide || next > end;
    const bool small = next < text.size() && text[next] >= 'a' && text[next] <= 'z';
    if (apart && !small && !(abbreviated && marks == 1 && end == unclosed)) add(end);
    at = end;
  }
  add(text.size());
  return sentences;
}

}  // namespace stoa
