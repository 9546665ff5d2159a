#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "stoa/base/json.h"
#include "stoa/data/prepared_folder.h"
#include "stoa/data/tabular/layout.h"
#include "stoa/data/tabular/parse.h"
#include "stoa/data/tabular/schema.h"
#include "stoa/data/tabular/vocabulary.h"

namespace stoa {

enum class VocabularyKind {
  kExact,      ///< every value has an id
  kThreshold,  ///< values that occur often enough in training rows have one, the others share id 0
  kHash        ///< the id is a hash of the value
};

/// Why a number is refused whose scaled form is not finite.
inline constexpr const char* kBeyondScale =
    "the number lies too far outside the prepared data's range to be scaled; put it right or leave it empty";

/// How values become ids and numbers: what training, growing and predicting share.
struct TabularEncoding {
  RawLayout layout;
  VocabularyKind kind = VocabularyKind::kExact;
  std::int64_t min_count = 1;
  std::uint64_t hash_seed = 0;                            ///< with kHash
  std::vector<std::int64_t> sizes;                        ///< ids of each field
  std::vector<std::shared_ptr<const Vocabulary>> values;  ///< of each field; empty with kHash
  struct Range {
    double low = 0, high = 0;
    /// Min-max form of a value; an empty cell (NaN) counts as 0. (value - low) / (high - low), 0 where all
    /// are equal. Not finite for a value so far outside that fp32 cannot hold it.
    float scaled(double value) const;
    /// That of no value at all, to be widened.
    static Range none();
    void widen(double value) {
      low = std::min(low, value);
      high = std::max(high, value);
    }
  };
  std::vector<Range> ranges;  ///< of each numeric
  Joins joins;
  std::string grown_from;

  TabularSchema schema() const;
  /// Names the encoding: equal for equal names, sizes, values and ranges.
  std::string fingerprint() const;
};

/// A prepared data set's folder: schema.json, vocabularies, counts and row files. schema.json is written
/// last, so a folder without it is unfinished.
struct PreparedFolder {
  struct Part {
    std::string file;
    std::int64_t rows = 0, bytes = 0;
  };
  struct Split {
    std::int64_t rows = 0, positives = 0;
    std::vector<Part> parts;
  };

  std::filesystem::path folder;
  TabularEncoding encoding;
  std::string vocabulary_hash;
  std::array<Split, 3> splits;  ///< train, validation, test
  Json command;                 ///< inputs and options it was made with
  Json counts;                  ///< file, bytes, crc32 of the training counts

  /// Reads and checks schema.json, vocabularies and joins. Throws DataError, naming the file, where the
  /// folder is unfinished or something in it was altered.
  static PreparedFolder open(const std::filesystem::path& folder);
  /// Writes schema.json; all other files must be there.
  void write() const;
  /// How often each id occurs in training rows, field by field.
  std::vector<std::vector<std::uint32_t>> read_counts() const;
};

/// "train", "validation", "test".
const char* split_name(TabularSplit split);
const char* vocabulary_kind_name(VocabularyKind kind);

/// File names within the folder.
std::string vocabulary_file(std::size_t field);
inline constexpr const char* kSchemaFile = "schema.json";
inline constexpr const char* kCountsFile = "counts.bin";
inline constexpr const char* kJoinsFile = "joins.json";

inline constexpr PreparedKind kTabularKind = {kSchemaFile, "stoa-tabular-1", "data", "stoa data prepare"};

}  // namespace stoa
