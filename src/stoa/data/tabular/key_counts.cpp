#include "stoa/data/tabular/key_counts.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "stoa/data/tabular/hash.h"

namespace stoa {
namespace {

constexpr std::size_t kAhead = 16;  // look-ups whose loads are under way

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
  if (text == nullptr) return;
  texts.append(*text);
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

KeyRun merge(const KeyRun& a, const KeyRun& b) {
  const bool with_texts = !a.ends.empty() || !b.ends.empty();
  KeyRun merged;
  merged.keys.reserve(a.size() + b.size());
  merged.counts.reserve(a.size() + b.size());
  merged.texts.reserve(a.texts.size() + b.texts.size());
  if (with_texts) merged.ends.reserve(a.size() + b.size());
  const auto take = [&](const KeyRun& from, std::size_t i, std::uint32_t count) {
    const std::string_view text = with_texts ? from.text(i) : std::string_view();
    merged.append(from.keys[i], count, with_texts ? &text : nullptr);
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
      if (with_texts && a.text(i) != b.text(j)) throw_collision(a.text(i), b.text(j));
      take(a, i, saturated(std::uint64_t{a.counts[i]} + b.counts[j]));
      ++i, ++j;
    }
  }
  for (; i < a.size(); ++i) take(a, i, a.counts[i]);
  for (; j < b.size(); ++j) take(b, j, b.counts[j]);
  return merged;
}

KeyCounter::KeyCounter() : slots_(1 << 10) {}

KeyCounter::Slot& KeyCounter::find(std::uint64_t key) {
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = hash64(key, 0) & mask;
  while (slots_[at].text != kEmpty && slots_[at].key != key) at = (at + 1) & mask;
  return slots_[at];
}

void KeyCounter::grow() {
  std::vector<Slot> old(slots_.size() * 4);
  old.swap(slots_);
  for (const Slot& slot : old)
    if (slot.text != kEmpty) find(slot.key) = slot;
}

void KeyCounter::add(std::span<const std::uint64_t> keys, const std::string_view* texts,
                     const std::uint8_t* counted) {
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (i + kAhead < keys.size())
      __builtin_prefetch(&slots_[hash64(keys[i + kAhead], 0) & (slots_.size() - 1)], 1);
    Slot& slot = find(keys[i]);
    const std::uint32_t add = counted == nullptr || counted[i] != 0;
    if (slot.text != kEmpty) {
      if (texts != nullptr && texts_[slot.text] != texts[i]) throw_collision(texts_[slot.text], texts[i]);
      slot.count += add;
      continue;
    }
    slot = {keys[i], add, texts == nullptr ? kUsed : static_cast<std::uint32_t>(texts_.size())};
    if (texts != nullptr) texts_.push_back(texts[i]);
    if (++used_ * 2 > slots_.size()) grow();
  }
}

KeyRun KeyCounter::finish() {
  std::vector<Slot> used;
  used.reserve(used_);
  for (const Slot& slot : slots_)
    if (slot.text != kEmpty) used.push_back(slot);
  std::ranges::sort(used, {}, &Slot::key);
  KeyRun run;
  for (const Slot& slot : used)
    run.append(slot.key, slot.count, slot.text == kUsed ? nullptr : &texts_[slot.text]);
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
