#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stoa/data/tabular/bytes.h"

namespace stoa {

/// Distinct keys in rising order, how often each occurred, and, where keys stand for texts, the texts.
struct KeyRun {
  std::vector<std::uint64_t> keys;
  std::vector<std::uint32_t> counts;  ///< at most 2^32 - 1
  std::vector<std::uint64_t> ends;    ///< text i is texts[ends[i - 1], ends[i]); empty without texts
  std::string texts;

  std::size_t size() const { return keys.size(); }
  std::string_view text(std::size_t i) const;
  void append(std::uint64_t key, std::uint32_t count, const std::string_view* text);
  void append_text(std::string_view text);
  void write(ByteWriter& writer) const;
  /// Throws DataError where what was written is truncated or damaged.
  static KeyRun read(ByteReader& reader);
};

/// Both runs as one. Throws DataError naming two texts that share a key.
KeyRun merge(const KeyRun& a, const KeyRun& b);

/// Counts the keys of one chunk: a hash table, as most values of click logs repeat.
class KeyCounter {
 public:
  KeyCounter();
  /// `texts` is null where keys do not stand for texts; they must live until finish(). A key that is not
  /// `counted` (see the mask, null for all) is kept with count 0 if it occurs in no counted row. `numbers`
  /// (may be null) gets the number of each key: keys are numbered as they come.
  void add(std::span<const std::uint64_t> keys, const std::string_view* texts, const std::uint8_t* counted,
           std::uint32_t* numbers = nullptr);
  /// What was counted; `places` (may be null) gets the place in the run of each key's number.
  KeyRun finish(std::vector<std::uint32_t>* places = nullptr);

 private:
  /// Where a key's number stands: the search begins at the slot that the hash names.
  struct Slot {
    std::uint32_t hash = 0, number = kEmpty;
  };
  static constexpr std::uint32_t kEmpty = std::numeric_limits<std::uint32_t>::max();
  void make_room(std::size_t more);
  void add_some(std::span<const std::uint64_t> keys, const std::uint8_t* counted, std::uint32_t* numbers);
  void note_texts(std::span<const std::uint32_t> numbers, const std::string_view* texts);

  std::vector<Slot> slots_;          // open addressing, at most half full
  std::vector<std::uint64_t> keys_;  // by number, with room for those to come
  std::vector<std::uint32_t> counts_;
  std::vector<std::string_view> texts_;
  std::uint32_t used_ = 0;
};

/// Merges runs as they come, so that every key is moved only log(runs) times and little more than the
/// distinct keys is kept in memory.
class RunMerger {
 public:
  void add(KeyRun run);
  /// All runs as one; the merger is empty afterwards.
  KeyRun finish();

 private:
  std::vector<KeyRun> runs_;  // each more than twice as long as the next
};

}  // namespace stoa
