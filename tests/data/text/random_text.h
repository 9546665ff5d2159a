#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "stoa/base/random.h"
#include "stoa/data/text/unicode.h"

namespace stoa::test {

/// The random texts of make_tokenizer_golden.py, drawn in the same order: accents, marks, ideographs,
/// controls, emoji, private and unassigned code points, special tokens, and one of eight broken.
class RandomText {
 public:
  explicit RandomText(std::uint64_t seed) : stream_(seed) {}

  std::string next() {
    std::vector<std::size_t> chosen;
    if (draw(2) == 1)
      for (int i = 0; i < 3; ++i) chosen.push_back(draw(ranges().size()));
    std::string text;
    const std::size_t length = draw(std::vector<std::size_t>{8, 24, 60}[draw(3)]);
    for (std::size_t i = 0; i < length; ++i) {
      const std::size_t what = draw(32);
      if (what == 0)
        text += words()[draw(words().size())];
      else if (what == 1)
        unicode::append(special()[draw(special().size())], text);
      else if (what < 6)
        text += ' ';
      else
        unicode::append(point(chosen), text);
    }
    if (draw(8) == 0) damage(text);
    return text;
  }

 private:
  using Range = std::pair<char32_t, char32_t>;
  static const std::vector<Range>& ranges() {
    static const std::vector<Range> all{
        {0x20, 0x7E},       {0x61, 0x7A},        {0x20, 0x20},      {0x00, 0x7F},     {0x80, 0x7FF},
        {0xC0, 0x24F},      {0x300, 0x36F},      {0x370, 0x5FF},    {0x800, 0xFFFF},  {0x1E00, 0x206F},
        {0x3040, 0x30FF},   {0x4E00, 0x9FFF},    {0xAC00, 0xD7A3},  {0xE000, 0xF8FF}, {0xF900, 0xFAFF},
        {0x1F300, 0x1FAFF}, {0x10000, 0x10FFFF}, {0x1D15E, 0x1D1BF}};
    return all;
  }
  static const std::vector<char32_t>& special() {
    static const std::vector<char32_t> all{0x130,  0x344,   0x302E,  0x302F, 0x1E9E,  0xFFFD, 0x200B,
                                           0x200D, 0xAD,    0x85,    0x2028, 0x3000,  0x345,  0x334,
                                           0x323,  0x301,   0xFEFF,  0x37E,  0x1FEF,  0x2126, 0xFB1D,
                                           0x1B44, 0x16FF0, 0x11938, 0x1DF6, 0x10D50, 0xA7CB, 0x166D};
    return all;
  }
  static const std::vector<std::string>& words() {
    static const std::vector<std::string> all{"[MASK]", "[CLS]", "[UNK]", "[unk]",         "hello", "Don't",
                                              "'s",     "'ll",   "'RE",   "<|endoftext|>", "  ",    "\n"};
    return all;
  }

  std::size_t draw(std::size_t n) { return static_cast<std::size_t>(stream_.bits() % n); }
  char32_t point(const std::vector<std::size_t>& chosen) {
    const std::size_t kind = chosen.empty() ? draw(ranges().size()) : chosen[draw(chosen.size())];
    const auto [first, last] = ranges()[kind];
    const auto point = static_cast<char32_t>(first + draw(last - first + 1));
    return point >= 0xD800 && point < 0xE000 ? 0xD7FF : point;
  }
  /// Alters, leaves out or puts in some bytes.
  void damage(std::string& text) {
    const std::size_t times = 1 + draw(3);
    for (std::size_t i = 0; i < times && !text.empty(); ++i) {
      const std::size_t at = draw(text.size()), how = draw(3);
      const auto byte = static_cast<char>(0x80 + draw(0x80));
      if (how == 0)
        text[at] = byte;
      else if (how == 1)
        text.erase(at, 1);
      else
        text.insert(at, 1, byte);
    }
  }

  RandomStream stream_;
};

}  // namespace stoa::test
