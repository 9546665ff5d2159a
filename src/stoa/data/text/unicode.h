#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stoa/data/text/tokenizer.h"

namespace stoa::unicode {

/// What a code point is, as a set of bits: the classes of Python's `tokenizers`.
enum Class : std::uint8_t {
  kLetter = 1,
  kNumber = 2,
  kSpace = 4,
  kControl = 8,       ///< control, format and private use (Unicode 8), not \t \n \r
  kMark = 16,         ///< a mark without width of its own (Unicode 8): what stripping accents drops
  kCombining = 32,    ///< canonical order may move it (Unicode 9)
  kPunctuation = 64,  ///< for BERT: ASCII's symbols, and punctuation (Unicode 8)
  kIdeograph = 128,   ///< BERT puts spaces around it
};
std::uint8_t classes(char32_t point);

/// Whether regular expressions count it to \w.
bool is_word_character(char32_t point);

/// The code point at `at`, which moves behind it. The text must be valid UTF-8.
inline char32_t next(const char*& at) {
  const auto byte = [&](int i) { return static_cast<std::uint32_t>(static_cast<std::uint8_t>(at[i])); };
  const std::uint32_t lead = byte(0);
  if (lead < 0x80) return at += 1, lead;
  if (lead < 0xE0) {
    const char32_t point = (lead & 0x1F) << 6 | (byte(1) & 0x3F);
    return at += 2, point;
  }
  if (lead < 0xF0) {
    const char32_t point = (lead & 0xF) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    return at += 3, point;
  }
  const char32_t point = (lead & 7) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  return at += 4, point;
}
/// The code point that ends at `end`. The text before it must be valid UTF-8 and not empty.
char32_t last_before(const char* end);

/// Writes a code point as UTF-8 to `out`; returns its 1 to 4 bytes.
inline int put(char32_t point, char* out) {
  const auto byte = [](char32_t value) { return static_cast<char>(value); };
  if (point < 0x80) return out[0] = byte(point), 1;
  if (point < 0x800) return out[0] = byte(0xC0 | point >> 6), out[1] = byte(0x80 | (point & 0x3F)), 2;
  if (point < 0x10000) {
    out[0] = byte(0xE0 | point >> 12), out[1] = byte(0x80 | (point >> 6 & 0x3F));
    return out[2] = byte(0x80 | (point & 0x3F)), 3;
  }
  out[0] = byte(0xF0 | point >> 18), out[1] = byte(0x80 | (point >> 12 & 0x3F));
  return out[2] = byte(0x80 | (point >> 6 & 0x3F)), out[3] = byte(0x80 | (point & 0x3F)), 4;
}
void append(char32_t point, std::string& text);

/// The one code point that is lower case of another; U+0130, which has two, gives the first, `i`.
char32_t lower(char32_t point);
/// Appends the full canonical decomposition of a code point, not put in canonical order.
void decompose(char32_t point, std::vector<char32_t>& out);
/// Canonical combining class; 0 for all that canonical order leaves where it is.
int combining_class(char32_t point);

/// Bytes of the longest valid prefix of a text.
std::size_t valid_prefix(std::string_view text);
/// Bytes of the maximal broken part that `text` begins with: 1 to 3 of a sequence cut short, or 1.
std::size_t broken_part(std::string_view text);
/// The text with U+FFFD for each maximal broken part.
std::string repaired(std::string_view text);

/// A text as valid UTF-8: itself, or a copy in which each maximal broken part is U+FFFD. Throws DataError
/// with the offset of the first broken byte where that is to be refused, and for 2 GiB or more.
class ValidText {
 public:
  ValidText(std::string_view text, BrokenUtf8 broken);
  ValidText(const ValidText&) = delete;
  ValidText& operator=(const ValidText&) = delete;

  std::string_view view() const { return view_; }
  /// Turns places in view() into places in the text.
  void restore(std::vector<Token>& tokens) const;

 private:
  struct Edge {
    std::int32_t repaired, original;
  };
  std::string_view view_;
  std::string copy_;
  std::vector<Edge> edges_;  // where U+FFFD begin and end
};

}  // namespace stoa::unicode
