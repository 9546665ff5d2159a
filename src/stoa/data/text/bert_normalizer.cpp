#include "stoa/data/text/bert_normalizer.h"

#include <algorithm>
#include <mutex>
#include <utility>

namespace stoa {
using unicode::classes, unicode::kCombining, unicode::kControl, unicode::kIdeograph, unicode::kMark,
    unicode::kPunctuation, unicode::kSpace;

BertNormalizer::BertNormalizer(const BertNormalizerOptions& options) : options_(options) {
  for (char32_t point = 0; point < 128; ++point) {
    const std::uint32_t rule = make_rule(point);
    const std::uint8_t kind = classes(rule & kPoint);
    AsciiRule& made = ascii_[point];
    made.out = static_cast<char>(rule & kPoint);
    made.kind = (rule & kGone) != 0          ? Ascii::kGone
                : (kind & kSpace) != 0       ? Ascii::kSpace
                : (kind & kPunctuation) != 0 ? Ascii::kPunctuation
                                             : Ascii::kWord;
  }
  static std::mutex mutex;
  static std::array<std::weak_ptr<const std::vector<std::uint32_t>>, 16> made;
  const std::lock_guard lock(mutex);
  auto& known = made[static_cast<std::size_t>(options.clean_text + 2 * options.ideographs +
                                              4 * options.strip_accents + 8 * options.lowercase)];
  rules_ = known.lock();
  if (rules_ == nullptr) {
    auto rules = std::make_shared<std::vector<std::uint32_t>>(kTable);
    for (char32_t point = 0; point < kTable; ++point) (*rules)[point] = make_rule(point);
    known = rules_ = std::move(rules);
  }
  table_ = rules_->data();
}

/// Whether cleaning drops it.
bool BertNormalizer::is_cleaned(char32_t point) const {
  return options_.clean_text && (point == 0 || point == 0xFFFD || (classes(point) & kControl) != 0);
}

std::uint32_t BertNormalizer::make_rule(char32_t point) const {
  if (is_cleaned(point)) return kGone;
  if (options_.clean_text && (classes(point) & kSpace) != 0) point = ' ';
  const std::uint32_t split = options_.ideographs && (classes(point) & kIdeograph) != 0 ? kSplit : 0;
  if (options_.strip_accents) {
    std::vector<char32_t> parts;
    unicode::decompose(point, parts);
    std::erase_if(parts, [](char32_t part) { return (classes(part) & kMark) != 0; });
    if (parts.empty()) return kGone;
    // what has a combining class and is no mark may change places with others
    if (parts.size() > 1 || (classes(parts[0]) & kCombining) != 0) return kComplex;
    point = parts[0];
  }
  if (options_.lowercase) {
    if (point == 0x130) return kComplex;  // the only one with a lower case of two
    point = unicode::lower(point);
  }
  return point | split;
}

/// From `at` on up to the next character that becomes a single one, across which nothing is reordered.
const char* BertNormalizer::end_of_run(const char* at, const char* end) const {
  while (at < end) {
    const char* const here = at;
    const char32_t point = unicode::next(at);
    const std::uint32_t rule = point < kTable ? table_[point] : make_rule(point);
    if ((rule & (kGone | kComplex)) == 0) return here;
  }
  return end;
}

/// The long way for characters of which several come, or whose order changes. Where canonical order moves
/// marks, the n-th first part belongs to the n-th character, as `tokenizers` counts.
void BertNormalizer::reorder(std::string_view run, std::int32_t offset, std::vector<Placed>& parts) const {
  std::vector<Placed> characters;
  std::vector<char32_t> points;
  for (const char *at = run.data(), *end = at + run.size(); at < end;) {
    const auto begin = offset + static_cast<std::int32_t>(at - run.data());
    const char32_t point = unicode::next(at);
    if (is_cleaned(point)) continue;
    characters.push_back({point, begin, offset + static_cast<std::int32_t>(at - run.data()), true, 0});
    points.assign(1, point);
    if (options_.strip_accents) {
      points.clear();
      unicode::decompose(point, points);
    }
    for (std::size_t i = 0; i < points.size(); ++i)
      parts.push_back(
          {points[i], 0, 0, i == 0, static_cast<std::uint8_t>(unicode::combining_class(points[i]))});
  }
  if (options_.strip_accents)
    for (auto begin = parts.begin(); begin != parts.end();) {
      const auto end =
          std::find_if(begin + 1, parts.end(), [](const Placed& part) { return part.combining_class == 0; });
      const auto marks = begin->combining_class == 0 ? begin + 1 : begin;
      std::stable_sort(marks, end,
                       [](const auto& a, const auto& b) { return a.combining_class < b.combining_class; });
      begin = end;
    }
  std::size_t character = 0;
  for (Placed& part : parts) {
    if (part.first) ++character;
    if (character == 0) continue;
    part.begin = characters[character - 1].begin;
    part.end = characters[character - 1].end;
  }
  if (options_.strip_accents)
    std::erase_if(parts, [](const Placed& part) { return (classes(part.point) & kMark) != 0; });
  if (!options_.lowercase) return;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const bool two = parts[i].point == 0x130;
    parts[i].point = unicode::lower(parts[i].point);
    if (!two) continue;
    Placed dot = parts[i];
    dot.point = 0x307;
    parts.insert(parts.begin() + static_cast<std::ptrdiff_t>(++i), dot);
  }
}

}  // namespace stoa
