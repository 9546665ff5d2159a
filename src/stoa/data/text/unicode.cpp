#include "stoa/data/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/text/unicode_tables.h"

namespace stoa::unicode {
namespace {

using unicode_tables::CodePointRun;

constexpr char32_t kPoints = 0x110000;
constexpr CodePointRun kSpaces[] = {{0x9, 0xD},       {0x20, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},
                                    {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                                    {0x205F, 0x205F}, {0x3000, 0x3000}};
constexpr CodePointRun kIdeographs[] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},
                                        {0x20000, 0x2A6DF}, {0x2A700, 0x2B81F}, {0x2B920, 0x2CEAF},
                                        {0x2F800, 0x2FA1F}};
/// Circled and squared capitals: symbols that count as alphabetic.
constexpr CodePointRun kAlphabeticSymbols[] = {
    {0x24B6, 0x24E9}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
/// Decompositions newer than Unicode 9, by which `tokenizers` decomposes.
constexpr CodePointRun kDecomposedLater[] = {
    {0x105C9, 0x105C9}, {0x105E4, 0x105E4}, {0x11383, 0x11383}, {0x11385, 0x11385}, {0x1138E, 0x1138E},
    {0x11391, 0x11391}, {0x113C5, 0x113C8}, {0x11938, 0x11938}, {0x16121, 0x16128}, {0x16D68, 0x16D6A}};
/// Lower case newer than Unicode 15, which some utf8proc lack: a run and the way to its lower case.
struct LowerRun {
  char32_t first, last;
  std::int32_t step;
};
constexpr LowerRun kLaterLower[] = {{0x1C89, 0x1C89, 1},      {0xA7CB, 0xA7CB, 0x264 - 0xA7CB},
                                    {0xA7CC, 0xA7CC, 1},      {0xA7CE, 0xA7CE, 1},
                                    {0xA7D2, 0xA7D2, 1},      {0xA7D4, 0xA7D4, 1},
                                    {0xA7DA, 0xA7DA, 1},      {0xA7DC, 0xA7DC, 0x19B - 0xA7DC},
                                    {0x10D50, 0x10D65, 0x20}, {0x16EA0, 0x16EB8, 0x1B}};

bool within(std::span<const CodePointRun> runs, char32_t point) {
  return std::ranges::any_of(
      runs, [&](const CodePointRun& run) { return run.first <= point && point <= run.last; });
}

std::vector<std::uint8_t> make_classes() {
  std::vector<std::uint8_t> all(kPoints);
  const auto mark = [&](std::span<const CodePointRun> runs, Class bit) {
    for (const auto& run : runs)
      for (char32_t point = run.first; point <= run.last; ++point)
        all[point] = static_cast<std::uint8_t>(all[point] | bit);
  };
  mark(unicode_tables::kLetters, kLetter);
  mark(unicode_tables::kNumbers, kNumber);
  mark(unicode_tables::kControls, kControl);
  mark(unicode_tables::kMarks, kMark);
  mark(unicode_tables::kCombining, kCombining);
  mark(unicode_tables::kPunctuation, kPunctuation);
  mark(kSpaces, kSpace);
  mark(kIdeographs, kIdeograph);
  return all;
}

/// The length that a first byte asks for and the range of the second byte; length 0 for a byte that begins
/// nothing.
struct Lead {
  std::uint8_t length, low, high;
};

constexpr Lead lead_of(std::uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2 || byte > 0xF4) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte < 0xF0)  // no overlong forms, no surrogates
    return {3, static_cast<std::uint8_t>(byte == 0xE0 ? 0xA0 : 0x80),
            static_cast<std::uint8_t>(byte == 0xED ? 0x9F : 0xBF)};
  return {4, static_cast<std::uint8_t>(byte == 0xF0 ? 0x90 : 0x80),
          static_cast<std::uint8_t>(byte == 0xF4 ? 0x8F : 0xBF)};
}

constexpr std::array<Lead, 256> kLeads = [] {
  std::array<Lead, 256> all{};
  for (int byte = 0; byte < 256; ++byte) all[byte] = lead_of(static_cast<std::uint8_t>(byte));
  return all;
}();

/// Valid bytes of the sequence that `text` begins with, and whether it is whole.
struct Sequence {
  std::size_t bytes;
  bool whole;
};

Sequence sequence_at(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const Lead lead = kLeads[byte(0)];
  if (lead.length <= 1) return {1, lead.length == 1};
  if (text.size() < 2 || byte(1) < lead.low || byte(1) > lead.high) return {1, false};
  std::size_t length = 2;
  while (length < lead.length && length < text.size() && (byte(length) & 0xC0) == 0x80) ++length;
  return {length, length == lead.length};
}

}  // namespace

std::uint8_t classes(char32_t point) {
  static const std::vector<std::uint8_t> all = make_classes();
  return all[point];
}

bool is_word_character(char32_t point) {
  if (point < 0x80)
    return (point >= '0' && point <= '9') || (point >= 'A' && point <= 'Z') ||
           (point >= 'a' && point <= 'z') || point == '_';
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(point));
  return (classes(point) & kLetter) != 0 ||
         (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) ||
         category == UTF8PROC_CATEGORY_PC || point == 0x200C || point == 0x200D ||
         within(kAlphabeticSymbols, point);
}

char32_t last_before(const char* end) {
  const char* at = end - 1;
  while ((static_cast<std::uint8_t>(*at) & 0xC0) == 0x80) --at;
  return next(at);
}

void append(char32_t point, std::string& text) {
  char bytes[4];
  text.append(bytes, static_cast<std::size_t>(put(point, bytes)));
}

char32_t lower(char32_t point) {
  if (point < 0x80) return point >= 'A' && point <= 'Z' ? point + 32 : point;
  if (point == 0x130) return 'i';
  for (const LowerRun& run : kLaterLower)
    if (run.first <= point && point <= run.last)
      return static_cast<char32_t>(static_cast<std::int32_t>(point) + run.step);
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(point)));
}

void decompose(char32_t point, std::vector<char32_t>& out) {
  if (point < 0xC0 || within(kDecomposedLater, point)) {
    out.push_back(point);
    return;
  }
  utf8proc_int32_t parts[16];
  int boundary = 0;
  const auto count =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(point), parts, 16, UTF8PROC_DECOMPOSE, &boundary);
  if (count < 1 || count > 16)  // never in any Unicode: the longest has 4
    out.push_back(point);
  else
    for (utf8proc_ssize_t i = 0; i < count; ++i) out.push_back(static_cast<char32_t>(parts[i]));
}

int combining_class(char32_t point) {
  if ((classes(point) & kCombining) == 0) return 0;
  return utf8proc_get_property(static_cast<utf8proc_int32_t>(point))->combining_class;
}

std::size_t valid_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    std::uint64_t word;
    while (at + 8 <= text.size()) {
      std::memcpy(&word, text.data() + at, 8);
      if ((word & 0x8080808080808080u) != 0) break;
      at += 8;
    }
    while (at < text.size() && static_cast<std::uint8_t>(text[at]) < 0x80) ++at;
    while (at < text.size() && static_cast<std::uint8_t>(text[at]) >= 0x80) {
      const Sequence sequence = sequence_at(text.substr(at, 4));
      if (!sequence.whole) return at;
      at += sequence.bytes;
    }
  }
  return at;
}

std::size_t broken_part(std::string_view text) {
  return sequence_at(text).bytes;
}

std::string repaired(std::string_view text) {
  std::string copy;
  while (true) {
    const std::size_t valid = valid_prefix(text);
    copy += text.substr(0, valid);
    text.remove_prefix(valid);
    if (text.empty()) return copy;
    copy += "\xEF\xBF\xBD";
    text.remove_prefix(broken_part(text));
  }
}

ValidText::ValidText(std::string_view text, BrokenUtf8 broken) : view_(text) {
  if (text.size() > std::numeric_limits<std::int32_t>::max() / 3)
    throw DataError(format("a text of {} bytes; at most {} fit, cut it into documents", text.size(),
                           std::numeric_limits<std::int32_t>::max() / 3));
  std::size_t at = valid_prefix(text);
  if (at == text.size()) return;
  if (broken == BrokenUtf8::kRefuse)
    throw DataError(
        format("byte {} (0x{:02x}) is not UTF-8; convert the text, or let broken parts be replaced", at,
               static_cast<unsigned>(static_cast<std::uint8_t>(text[at]))));
  std::size_t done = 0;
  const auto edge = [&] {
    edges_.push_back({static_cast<std::int32_t>(copy_.size()), static_cast<std::int32_t>(done)});
  };
  while (done < text.size()) {
    const std::size_t valid = valid_prefix(text.substr(done));
    copy_ += text.substr(done, valid);
    done += valid;
    if (done == text.size()) break;
    edge();
    copy_ += "\xEF\xBF\xBD";
    done += broken_part(text.substr(done));
    edge();
  }
  view_ = copy_;
}

void ValidText::restore(std::vector<Token>& tokens) const {
  if (edges_.empty()) return;
  const auto original = [&](std::int32_t place) {
    const auto after = std::ranges::upper_bound(edges_, place, {}, &Edge::repaired);
    if (after == edges_.begin()) return place;
    const Edge& edge = *std::prev(after);
    return edge.original + (place - edge.repaired);
  };
  for (Token& token : tokens) {
    token.begin = original(token.begin);
    token.end = original(token.end);
  }
}

}  // namespace stoa::unicode
