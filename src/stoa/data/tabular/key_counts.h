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
  /// `counted` (see the mask, null for all) is kept with count 0 if it occurs in no counted row.
  void add(std::span<const std::uint64_t> keys, const std::string_view* texts, const std::uint8_t* counted);
  KeyRun finish();

 private:
  struct Slot {
    std::uint64_t key = 0;
    std::uint32_t count = 0;
    std::uint32_t text = kEmpty;  // place in texts_, kUsed without texts
  };
  static constexpr std::uint32_t kEmpty = std::numeric_limits<std::uint32_t>::max(), kUsed = kEmpty - 1;
  Slot& find(std::uint64_t key);
  void grow();

  std::vector<Slot> slots_;
  std::vector<std::string_view> texts_;
  std::size_t used_ = 0;
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
