#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "stoa/data/text/unicode.h"

namespace stoa {

/// The steps of BERT's normalisation, in their order.
struct BertNormalizerOptions {
  bool clean_text = true;     ///< drop controls and U+FFFD, write every white space as a space
  bool ideographs = true;     ///< put spaces around each Chinese character
  bool strip_accents = true;  ///< decompose (NFD) and drop the marks
  bool lowercase = true;
};

/// BERT's normalisation, one code point after the other. What is put out is what Python's `tokenizers` gives,
/// with the places in the text of the characters that it comes from.
class BertNormalizer {
 public:
  explicit BertNormalizer(const BertNormalizerOptions& options);

  const BertNormalizerOptions& options() const { return options_; }

  /// What becomes of an ASCII character.
  enum class Ascii : std::uint8_t { kWord, kSpace, kPunctuation, kGone };
  struct AsciiRule {
    Ascii kind = Ascii::kWord;
    char out = 0;
  };

  /// Normalises a valid text that begins at `offset`: calls sink.ascii(rule, place) for ASCII, which has a
  /// length of 1, and sink.point(point, begin, end) for all else, and sink.split() where a space is put in.
  template <class Sink>
  void run(std::string_view text, std::int32_t offset, Sink& sink) const {
    const char *const start = text.data(), *const end = start + text.size();
    const auto place = [&](const char* at) { return offset + static_cast<std::int32_t>(at - start); };
    const char* loose = start;  // behind the last character that nothing is reordered across
    for (const char* at = start; at < end;) {
      const auto byte = static_cast<std::uint8_t>(*at);
      if (byte < 0x80) {
        const AsciiRule rule = ascii_[byte];
        if (rule.kind != Ascii::kGone) {
          sink.ascii(rule, place(at));
          loose = at + 1;
        }
        ++at;
        continue;
      }
      const char* const begin = at;
      const char32_t point = unicode::next(at);
      const std::uint32_t rule = point < kTable ? table_[point] : make_rule(point);
      if ((rule & kComplex) != 0) {
        at = end_of_run(at, end);
        std::vector<Placed> parts;
        reorder({loose, static_cast<std::size_t>(at - loose)}, place(loose), parts);
        for (const Placed& part : parts) sink.point(part.point, part.begin, part.end);
        loose = at;
      } else if ((rule & kGone) == 0) {
        if ((rule & kSplit) != 0) sink.split(place(begin), place(at));
        sink.point(rule & kPoint, place(begin), place(at));
        if ((rule & kSplit) != 0) sink.split(place(begin), place(at));
        loose = at;
      }
    }
  }

 private:
  struct Placed {
    char32_t point;
    std::int32_t begin, end;
    bool first;  // of the parts of its character
    std::uint8_t combining_class;
  };
  /// What becomes of a code point: the one it turns into, or one of these.
  static constexpr std::uint32_t kPoint = 0x1FFFFF, kGone = 1u << 21, kSplit = 1u << 22, kComplex = 1u << 23;
  static constexpr char32_t kTable = 0x3400;  // code points with their rules made in advance

  std::uint32_t make_rule(char32_t point) const;
  bool is_cleaned(char32_t point) const;
  const char* end_of_run(const char* at, const char* end) const;
  void reorder(std::string_view run, std::int32_t offset, std::vector<Placed>& parts) const;

  BertNormalizerOptions options_;
  std::array<AsciiRule, 128> ascii_;
  std::shared_ptr<const std::vector<std::uint32_t>> rules_;  // one for all with the same options
  const std::uint32_t* table_ = nullptr;
};

}  // namespace stoa
