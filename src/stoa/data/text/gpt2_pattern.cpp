#include "stoa/data/text/gpt2_pattern.h"

#include <array>
#include <cstdint>

#include "stoa/data/text/unicode.h"

namespace stoa {
namespace {

/// Letter, number, space or, 0, anything else.
using Kind = std::uint8_t;
constexpr Kind kWhole = unicode::kLetter | unicode::kNumber | unicode::kSpace;

constexpr std::array<Kind, 128> kAscii = [] {
  std::array<Kind, 128> all{};
  for (std::size_t c = 0; c < 128; ++c) {
    if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) all[c] = unicode::kLetter;
    if (c >= '0' && c <= '9') all[c] = unicode::kNumber;
    if (c == ' ' || (c >= 9 && c <= 13)) all[c] = unicode::kSpace;
  }
  return all;
}();

/// Kind of the character at `at`, which moves behind it.
Kind next_kind(const char*& at) {
  const auto byte = static_cast<std::uint8_t>(*at);
  if (byte < 0x80) return ++at, kAscii[byte];
  return unicode::classes(unicode::next(at)) & kWhole;
}

const char* end_of_run(const char* at, const char* end, Kind kind) {
  while (at < end) {
    const char* next = at;
    if (next_kind(next) != kind) break;
    at = next;
  }
  return at;
}

/// Bytes of 's 't 'm 'd 're 've 'll at an apostrophe, or 0.
std::size_t contraction(std::string_view text) {
  if (text.size() < 2) return 0;
  const char a = text[1], b = text.size() > 2 ? text[2] : '\0';
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  return ((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

}  // namespace

std::size_t gpt2_piece_end(std::string_view text, std::size_t begin) {
  const char *const start = text.data() + begin, *const end = text.data() + text.size();
  if (*start == '\'')
    if (const std::size_t length = contraction(text.substr(begin)); length > 0) return begin + length;
  const char* at = start;
  Kind kind = next_kind(at);
  if (*start == ' ' && at < end) {
    const char* behind = at;
    const Kind follows = next_kind(behind);
    if (follows != unicode::kSpace) at = behind, kind = follows;  // the space goes with what follows
  }
  const char* const first = at;
  at = end_of_run(at, end, kind);
  if (kind == unicode::kSpace && at < end && at > first) {
    // the last of several spaces belongs to what follows, if it is one that can
    do --at;
    while ((static_cast<std::uint8_t>(*at) & 0xC0) == 0x80);
  }
  return static_cast<std::size_t>(at - text.data());
}

}  // namespace stoa
