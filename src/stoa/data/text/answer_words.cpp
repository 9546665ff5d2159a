#include "stoa/data/text/answer_words.h"

#include <algorithm>
#include <array>

#include "stoa/data/text/unicode.h"

namespace stoa {
namespace {

using CodePoints = std::u32string;

bool is_punctuation(char32_t point) {
  return (point >= '!' && point <= '/') || (point >= ':' && point <= '@') || (point >= '[' && point <= '`') ||
         (point >= '{' && point <= '~');
}

/// White space by Python's str.split().
bool is_space(char32_t point) {
  if (point <= 0x20) return point == ' ' || (point >= 0x09 && point <= 0x0D) || point >= 0x1C;
  return point == 0x85 || point == 0xA0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200A) ||
         point == 0x2028 || point == 0x2029 || point == 0x202F || point == 0x205F || point == 0x3000;
}

/// A character of words by Python's regular expressions. Underscores are gone by then.
bool is_word(char32_t point) {
  return (unicode::classes(point) & (unicode::kLetter | unicode::kNumber)) != 0;
}

/// Blanks in the place of the articles that no letter or number touches.
void blank_articles(CodePoints& points) {
  constexpr std::array<std::u32string_view, 3> kArticles = {U"a", U"an", U"the"};
  for (std::size_t begin = 0; begin < points.size();) {
    std::size_t end = begin;
    while (end < points.size() && is_word(points[end])) ++end;
    const auto word = std::u32string_view(points).substr(begin, end - begin);
    if (std::ranges::find(kArticles, word) != kArticles.end())
      std::fill(points.begin() + static_cast<std::ptrdiff_t>(begin),
                points.begin() + static_cast<std::ptrdiff_t>(end), U' ');
    begin = std::max(end, begin + 1);
  }
}

}  // namespace

std::vector<std::string> answer_words(std::string_view text) {
  const std::string valid = unicode::repaired(text);
  CodePoints points;
  for (const char* at = valid.data(); at != valid.data() + valid.size();) {
    const char32_t given = unicode::next(at), point = unicode::lower(given);
    if (!is_punctuation(point)) points.push_back(point);
    if (given == 0x130) points.push_back(0x307);  // a capital i with a dot is two in lower case
  }
  blank_articles(points);
  std::vector<std::string> words;
  bool inside = false;
  for (const char32_t point : points) {
    if (is_space(point)) {
      inside = false;
      continue;
    }
    if (!inside) words.emplace_back();
    inside = true;
    unicode::append(point, words.back());
  }
  return words;
}

}  // namespace stoa
