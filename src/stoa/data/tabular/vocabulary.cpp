#include "stoa/data/tabular/vocabulary.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <utility>

#include "stoa/base/checksum.h"
#include "stoa/base/random.h"
#include "stoa/data/tabular/hash.h"
#include "stoa/data/tabular/parse.h"

namespace stoa {
namespace {

// The file: 8 bytes of magic, u32 type, u32 whether id 0 is unknown, u64 values, u64 bytes of text, u32
// CRC-32 of what follows the header, u32 CRC-32 of the header so far; then u64 keys in the order of ids and,
// for texts, u64 ends and the texts.
constexpr std::string_view kMagic = "STOAVOC1";
constexpr std::size_t kHeader = 40;
constexpr std::size_t kLargest = (std::size_t{1} << 31) - 2;  // ids fit int32
constexpr std::size_t kAhead = 16;                            // look-ups whose loads are under way

std::uint32_t type_code(CellType type) {
  return type == CellType::kText ? 0 : type == CellType::kHex ? 1 : 2;
}

std::span<const std::uint8_t> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

/// Places of the values that are kept, in the order of their ids.
std::vector<std::size_t> kept_places(CellType type, const KeyRun& run, std::int64_t min_count,
                                     const Vocabulary* before) {
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < run.size(); ++i) {
    if (run.counts[i] < min_count) continue;
    if (before != nullptr) {
      const std::string_view text = type == CellType::kText ? run.text(i) : std::string_view();
      const std::uint32_t id = before->id(run.keys[i], text);
      if (id != Vocabulary::kAbsent && !(before->has_unknown() && id == 0)) continue;
    }
    places.push_back(i);
  }
  // keys of numbers and digits sort as their values do
  if (type == CellType::kText)
    std::ranges::sort(places, [&](std::size_t a, std::size_t b) { return run.text(a) < run.text(b); });
  return places;
}

}  // namespace

std::string Vocabulary::build(CellType type, bool has_unknown, const KeyRun& run, std::int64_t min_count,
                              const Vocabulary* before) {
  const std::vector<std::size_t> places = kept_places(type, run, min_count, before);
  std::vector<std::uint64_t> keys, ends;
  std::string texts;
  if (before != nullptr) {
    keys.assign(before->keys_.begin(), before->keys_.end());
    ends.assign(before->ends_.begin(), before->ends_.end());
    texts = before->texts_;
  }
  if (keys.size() + places.size() > kLargest)
    throw DataError(format("a field has {} values; at most {} fit, use a vocabulary by threshold or hash",
                           keys.size() + places.size(), kLargest));
  for (const std::size_t place : places) {
    keys.push_back(run.keys[place]);
    if (type != CellType::kText) continue;
    texts += run.text(place);
    ends.push_back(texts.size());
  }
  ByteWriter content, header;
  content.array<std::uint64_t>(keys);
  content.array<std::uint64_t>(ends);
  content.bytes(texts.data(), texts.size());
  header.bytes(kMagic.data(), kMagic.size());
  header.number<std::uint32_t>(type_code(type));
  header.number<std::uint32_t>(has_unknown);
  header.number<std::uint64_t>(keys.size());
  header.number<std::uint64_t>(texts.size());
  header.number<std::uint32_t>(crc32(as_bytes(content.text())));
  header.number<std::uint32_t>(crc32(as_bytes(header.text())));
  return header.text() + content.text();
}

Vocabulary::Vocabulary(const std::filesystem::path& file)
    : file_(std::in_place, file), bytes_(file_->bytes()) {
  parse(file.string());
}

Vocabulary::Vocabulary(std::span<const std::uint8_t> bytes, const std::string& name) : bytes_(bytes) {
  parse(name);
}

void Vocabulary::parse(const std::string& name) {
  const auto refuse = [&](const char* what) {
    throw DataError(format("{}: {}; prepare the data again", name, what));
  };
  ByteReader reader(bytes_, name);
  const auto magic = reader.take(kMagic.size());
  if (!std::equal(magic.begin(), magic.end(), kMagic.begin())) refuse("no vocabulary of prepared data");
  const auto type = reader.number<std::uint32_t>(), unknown = reader.number<std::uint32_t>();
  const auto count = reader.number<std::uint64_t>(), text_bytes = reader.number<std::uint64_t>();
  const auto crc = reader.number<std::uint32_t>(), header_crc = reader.number<std::uint32_t>();
  if (crc32(bytes_.first(kHeader - 4)) != header_crc || type > 2 || unknown > 1 || count > kLargest)
    refuse("the header of the vocabulary is damaged");
  type_ = type == 0 ? CellType::kText : type == 1 ? CellType::kHex : CellType::kInteger;
  has_unknown_ = unknown == 1;
  const std::uint64_t ends = type_ == CellType::kText ? count : 0;
  if (text_bytes > reader.left() || reader.left() - text_bytes != 8 * (count + ends) ||
      (ends == 0 && text_bytes != 0))
    refuse("the vocabulary is truncated or too long");
  if (crc32(bytes_.subspan(kHeader)) != crc) refuse("the vocabulary was altered: its checksum is wrong");
  // the header has 40 bytes and files are mapped at pages: the words are aligned
  keys_ = {reinterpret_cast<const std::uint64_t*>(reader.take(8 * count).data()), count};
  ends_ = {reinterpret_cast<const std::uint64_t*>(reader.take(8 * ends).data()), ends};
  const auto texts = reader.take(text_bytes);
  texts_ = {reinterpret_cast<const char*>(texts.data()), texts.size()};
  std::uint64_t last = 0;
  for (const std::uint64_t end : ends_) {
    if (end < last || end > text_bytes) refuse("the texts of the vocabulary are damaged");
    last = end;
  }
  if (ends > 0 && last != text_bytes) refuse("the texts of the vocabulary are damaged");
  index(name);
}

void Vocabulary::index(const std::string& name) {
  slots_.assign(std::bit_ceil(keys_.size() + keys_.size() / 2 + 2), kAbsent);
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t i = 0; i < keys_.size(); ++i) {
    if (i + kAhead < keys_.size()) __builtin_prefetch(&slots_[hash64(keys_[i + kAhead], 0) & mask], 1);
    std::size_t at = hash64(keys_[i], 0) & mask;
    for (; slots_[at] != kAbsent; at = (at + 1) & mask)
      if (keys_[slots_[at]] == keys_[i])
        throw DataError(format("{}: the vocabulary has a value twice; prepare the data again", name));
    slots_[at] = static_cast<std::uint32_t>(i);
  }
}

std::uint32_t Vocabulary::id_of_place(std::uint32_t place) const {
  if (place == kAbsent) return has_unknown_ ? 0 : kAbsent;
  return place + static_cast<std::uint32_t>(first_id());
}

std::string_view Vocabulary::text_at(std::size_t place) const {
  const std::uint64_t begin = place == 0 ? 0 : ends_[place - 1];
  return texts_.substr(begin, ends_[place] - begin);
}

std::string Vocabulary::text(std::int64_t id) const {
  if (id < first_id()) return "unknown";
  const auto place = static_cast<std::size_t>(id - first_id());
  return type_ == CellType::kText ? std::string(text_at(place)) : text_of_key(type_, keys_[place]);
}

void Vocabulary::ids(std::span<const std::uint64_t> keys, std::uint32_t* ids) const {
  const std::size_t mask = slots_.size() - 1, count = keys.size();
  for (std::size_t i = 0; i < count; ++i) {  // first the slots, all loads under way at once
    ids[i] = static_cast<std::uint32_t>(hash64(keys[i], 0) & mask);
    __builtin_prefetch(&slots_[ids[i]]);
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (i + kAhead < count && slots_[ids[i + kAhead]] != kAbsent)
      __builtin_prefetch(&keys_[slots_[ids[i + kAhead]]]);
    std::size_t at = ids[i];
    while (slots_[at] != kAbsent && keys_[slots_[at]] != keys[i]) at = (at + 1) & mask;
    ids[i] = id_of_place(slots_[at]);
  }
}

std::uint32_t Vocabulary::id(std::uint64_t key, std::string_view text) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = hash64(key, 0) & mask;
  while (slots_[at] != kAbsent && keys_[slots_[at]] != key) at = (at + 1) & mask;
  if (slots_[at] != kAbsent && type_ == CellType::kText && text_at(slots_[at]) != text)
    return id_of_place(kAbsent);
  return id_of_place(slots_[at]);
}

std::uint32_t hashed_id(std::uint64_t key, std::uint64_t seed, std::size_t field, std::int64_t buckets) {
  __extension__ using Wide = unsigned __int128;
  const std::uint64_t hash = hash64(key, mix_seed({seed, field}));
  return static_cast<std::uint32_t>((static_cast<Wide>(hash) * static_cast<std::uint64_t>(buckets)) >> 64);
}

}  // namespace stoa
