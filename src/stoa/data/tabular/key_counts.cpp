#include "stoa/data/tabular/key_counts.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <numeric>
#include <utility>

#include "stoa/data/tabular/hash.h"

namespace stoa {
namespace {

constexpr std::size_t kTogether = 256;  // look-ups whose loads are under way at once

std::uint32_t saturated(std::uint64_t count) {
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(count, std::numeric_limits<std::uint32_t>::max()));
}

[[noreturn]] void throw_collision(std::string_view a, std::string_view b) {
  throw DataError(format(
      "the values `{}` and `{}` have the same 64-bit hash; change one of them, or use a column type of "
      "hex or integer",
      a, b));
}

}  // namespace

std::string_view KeyRun::text(std::size_t i) const {
  const std::uint64_t begin = i == 0 ? 0 : ends[i - 1];
  return std::string_view(texts).substr(begin, ends[i] - begin);
}

void KeyRun::append(std::uint64_t key, std::uint32_t count, const std::string_view* text) {
  keys.push_back(key);
  counts.push_back(count);
  if (text != nullptr) append_text(*text);
}

void KeyRun::append_text(std::string_view text) {
  texts.append(text);
  ends.push_back(texts.size());
}

void KeyRun::write(ByteWriter& writer) const {
  writer.number<std::uint64_t>(keys.size());
  writer.number<std::uint64_t>(ends.size());
  writer.number<std::uint64_t>(texts.size());
  writer.array<std::uint64_t>(keys);
  writer.array<std::uint32_t>(counts);
  writer.array<std::uint64_t>(ends);
  writer.bytes(texts.data(), texts.size());
}

KeyRun KeyRun::read(ByteReader& reader) {
  const auto size = reader.number<std::uint64_t>(), ends = reader.number<std::uint64_t>(),
             bytes = reader.number<std::uint64_t>();
  KeyRun run;
  run.keys = reader.array<std::uint64_t>(size);
  run.counts = reader.array<std::uint32_t>(size);
  run.ends = reader.array<std::uint64_t>(ends);
  const auto texts = reader.take(bytes);
  run.texts.assign(texts.begin(), texts.end());
  const bool placed =
      ends == 0 ? bytes == 0 : ends == size && run.ends.back() == bytes && std::ranges::is_sorted(run.ends);
  if (!placed || std::ranges::adjacent_find(run.keys, std::greater_equal()) != run.keys.end()) reader.fail();
  return run;
}

namespace {

/// Runs without texts. Which of them the next key comes from cannot be foreseen: no branch depends on it.
KeyRun merge_keys(const KeyRun& a, const KeyRun& b) {
  KeyRun merged;
  merged.keys.resize(a.size() + b.size());
  merged.counts.resize(a.size() + b.size());
  std::size_t i = 0, j = 0, k = 0;
  for (; i < a.size() && j < b.size(); ++k) {
    const std::uint64_t x = a.keys[i], y = b.keys[j];
    const bool from_a = x <= y, from_b = y <= x;
    merged.keys[k] = from_a ? x : y;
    merged.counts[k] = saturated((from_a ? std::uint64_t{a.counts[i]} : 0) + (from_b ? b.counts[j] : 0));
    i += from_a;
    j += from_b;
  }
  const auto rest = [&](const KeyRun& run, std::size_t from) {
    std::copy(run.keys.begin() + from, run.keys.end(), merged.keys.begin() + k);
    std::copy(run.counts.begin() + from, run.counts.end(), merged.counts.begin() + k);
    k += run.size() - from;
  };
  rest(a, i);
  rest(b, j);
  merged.keys.resize(k);
  merged.counts.resize(k);
  return merged;
}

}  // namespace

KeyRun merge(const KeyRun& a, const KeyRun& b) {
  if (a.ends.empty() && b.ends.empty()) return merge_keys(a, b);
  KeyRun merged;
  merged.keys.reserve(a.size() + b.size());
  merged.counts.reserve(a.size() + b.size());
  merged.texts.reserve(a.texts.size() + b.texts.size());
  merged.ends.reserve(a.size() + b.size());
  const auto take = [&](const KeyRun& from, std::size_t i, std::uint32_t count) {
    const std::string_view text = from.text(i);
    merged.append(from.keys[i], count, &text);
  };
  std::size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (a.keys[i] < b.keys[j]) {
      take(a, i, a.counts[i]);
      ++i;
    } else if (b.keys[j] < a.keys[i]) {
      take(b, j, b.counts[j]);
      ++j;
    } else {
      if (a.text(i) != b.text(j)) throw_collision(a.text(i), b.text(j));
      take(a, i, saturated(std::uint64_t{a.counts[i]} + b.counts[j]));
      ++i, ++j;
    }
  }
  for (; i < a.size(); ++i) take(a, i, a.counts[i]);
  for (; j < b.size(); ++j) take(b, j, b.counts[j]);
  return merged;
}

KeyCounter::KeyCounter() : slots_(1 << 10) {}

void KeyCounter::make_room(std::size_t more) {
  keys_.resize(used_ + more + 1);  // one is written before it is known to be new
  counts_.resize(used_ + more + 1);
  if (2 * (used_ + more) <= slots_.size()) return;
  std::vector<Slot> old(std::bit_ceil(4 * (used_ + more)));
  old.swap(slots_);
  const std::size_t mask = slots_.size() - 1;
  for (const Slot& slot : old) {
    if (slot.number == kEmpty) continue;
    std::size_t at = slot.hash & mask;
    while (slots_[at].number != kEmpty) at = (at + 1) & mask;
    slots_[at] = slot;
  }
}

void KeyCounter::add(std::span<const std::uint64_t> keys, const std::string_view* texts,
                     const std::uint8_t* counted, std::uint32_t* numbers) {
  std::array<std::uint32_t, kTogether> own;
  for (std::size_t i = 0; i < keys.size(); i += kTogether) {
    const auto some = keys.subspan(i, std::min(kTogether, keys.size() - i));
    std::uint32_t* const to = numbers == nullptr ? own.data() : numbers + i;
    add_some(some, counted == nullptr ? nullptr : counted + i, to);
    if (texts != nullptr) note_texts({to, some.size()}, texts + i);
  }
}

// All hashes are worked out before the first look-up, so that loads can be under way well ahead of it. In the
// look-up new keys and old ones take the same way: which it is cannot be foreseen.
void KeyCounter::add_some(std::span<const std::uint64_t> keys, const std::uint8_t* counted,
                          std::uint32_t* numbers) {
  make_room(keys.size());
  Slot* const slots = slots_.data();
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    numbers[i] = static_cast<std::uint32_t>(hashing::fold(keys[i] ^ hashing::kFirst, hashing::kSecond));
    __builtin_prefetch(&slots[numbers[i] & mask], 1);
  }
  std::uint32_t used = used_;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const std::uint32_t hash = numbers[i];
    std::size_t at = hash & mask;
    while (slots[at].number != kEmpty && (slots[at].hash != hash || keys_[slots[at].number] != keys[i]))
      at = (at + 1) & mask;
    const std::uint32_t found = slots[at].number, number = found == kEmpty ? used : found;
    slots[at] = {hash, number};
    keys_[number] = keys[i];
    used += found == kEmpty;
    counts_[number] += counted == nullptr || counted[i] != 0;
    numbers[i] = number;
  }
  used_ = used;
}

void KeyCounter::note_texts(std::span<const std::uint32_t> numbers, const std::string_view* texts) {
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (numbers[i] == texts_.size())
      texts_.push_back(texts[i]);
    else if (texts_[numbers[i]] != texts[i])
      throw_collision(texts_[numbers[i]], texts[i]);
  }
}

namespace {

struct NumberedKey {
  std::uint64_t key = 0;
  std::uint32_t number = 0;
};

// By one byte after the other from the last, bytes that are the same in all keys left out.
void sort_by_key(std::vector<NumberedKey>& keys) {
  std::array<std::array<std::size_t, 256>, 8> counts{};
  for (const NumberedKey& item : keys)
    for (std::size_t byte = 0; byte < 8; ++byte) ++counts[byte][item.key >> (8 * byte) & 255];
  std::vector<NumberedKey> sorted(keys.size());
  for (std::size_t byte = 0; byte < 8; ++byte) {
    auto& places = counts[byte];
    if (std::ranges::find(places, keys.size()) != places.end()) continue;
    std::exclusive_scan(places.begin(), places.end(), places.begin(), std::size_t{0});
    for (const NumberedKey& item : keys) sorted[places[item.key >> (8 * byte) & 255]++] = item;
    keys.swap(sorted);
  }
}

}  // namespace

KeyRun KeyCounter::finish(std::vector<std::uint32_t>* places) {
  std::vector<NumberedKey> sorted(used_);
  for (std::uint32_t number = 0; number < used_; ++number) sorted[number] = {keys_[number], number};
  sort_by_key(sorted);
  KeyRun run;
  run.keys.resize(used_);
  run.counts.resize(used_);
  if (places != nullptr) places->resize(used_);
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    const auto [key, number] = sorted[i];
    run.keys[i] = key;
    run.counts[i] = counts_[number];
    if (places != nullptr) (*places)[number] = static_cast<std::uint32_t>(i);
    if (!texts_.empty()) run.append_text(texts_[number]);
  }
  *this = KeyCounter();
  return run;
}

void RunMerger::add(KeyRun run) {
  runs_.push_back(std::move(run));
  while (runs_.size() > 1 && runs_[runs_.size() - 2].size() <= 2 * runs_.back().size()) {
    KeyRun merged = merge(runs_[runs_.size() - 2], runs_.back());
    runs_.pop_back();
    runs_.back() = std::move(merged);
  }
}

KeyRun RunMerger::finish() {
  while (runs_.size() > 1) {
    KeyRun merged = merge(runs_[runs_.size() - 2], runs_.back());
    runs_.pop_back();
    runs_.back() = std::move(merged);
  }
  KeyRun run = runs_.empty() ? KeyRun() : std::move(runs_.front());
  runs_.clear();
  return run;
}

}  // namespace stoa
