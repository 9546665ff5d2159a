#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stoa/base/files.h"
#include "stoa/data/tabular/key_counts.h"
#include "stoa/data/tabular/layout.h"

namespace stoa {

/// The values of one field in the order of their ids, and the way from a value to its id. Ids of values begin
/// at 1 where id 0 stands for unknown values, else at 0.
class Vocabulary {
 public:
  /// Id of a value that the vocabulary lacks, where it has no unknown id.
  static constexpr std::uint32_t kAbsent = std::numeric_limits<std::uint32_t>::max();

  /// The file's bytes of a vocabulary of the values of `run` whose count is at least `min_count`, in sorted
  /// order, behind those of `before` (may be null), which keep their ids.
  static std::string build(CellType type, bool has_unknown, const KeyRun& run, std::int64_t min_count,
                           const Vocabulary* before);
  /// Maps a file of build(). Throws DataError naming it where it is truncated, altered or no vocabulary.
  explicit Vocabulary(const std::filesystem::path& file);
  /// The same of bytes in memory, which must outlive it; `name` is the file in messages.
  Vocabulary(std::span<const std::uint8_t> bytes, const std::string& name);

  std::int64_t size() const { return first_id() + static_cast<std::int64_t>(keys_.size()); }
  bool has_unknown() const { return has_unknown_; }
  CellType type() const { return type_; }
  /// The value of an id, as text; "unknown" for the unknown id.
  std::string text(std::int64_t id) const;
  std::span<const std::uint8_t> bytes() const { return bytes_; }

  /// Ids of keys, with loads fetched ahead. kAbsent where a key has none.
  void ids(std::span<const std::uint64_t> keys, std::uint32_t* ids) const;
  /// Id of one value; a text is compared as such, so that one that only shares the hash of another is not
  /// taken for it.
  std::uint32_t id(std::uint64_t key, std::string_view text) const;

 private:
  std::int64_t first_id() const { return has_unknown_ ? 1 : 0; }
  std::uint32_t id_of_place(std::uint32_t place) const;
  std::string_view text_at(std::size_t place) const;
  void parse(const std::string& name);
  void index(const std::string& name);

  std::optional<MappedFile> file_;
  std::span<const std::uint8_t> bytes_;
  CellType type_ = CellType::kHex;
  bool has_unknown_ = false;
  std::span<const std::uint64_t> keys_, ends_;
  std::string_view texts_;
  std::vector<std::uint32_t> slots_;  // open addressing: places in keys_, kAbsent where empty
};

/// The id of a value in a hashed vocabulary of `buckets` ids; `seed` is the preparation's, `field` the
/// field's number.
std::uint32_t hashed_id(std::uint64_t key, std::uint64_t seed, std::size_t field, std::int64_t buckets);

}  // namespace stoa
