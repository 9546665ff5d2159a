#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "stoa/data/tabular/folder.h"

namespace stoa {

/// What `stoa data prepare` does.
struct PrepareOptions {
  std::string source;  ///< "criteo", "avazu", "csv" or "movielens"
  std::vector<std::filesystem::path> inputs;
  std::filesystem::path out;
  std::filesystem::path table_schema;             ///< with csv: the file that names the columns
  bool bars = false;                              ///< BARS' preprocessing instead of the official one
  std::optional<VocabularyKind> vocabulary = {};  ///< exact; by threshold with `bars`
  std::optional<std::int64_t> min_count = {};     ///< of kThreshold: 10, for avazu 2
  std::int64_t buckets = 1'000'000;               ///< of kHash, each field
  std::string split = {};  ///< "random", "seq" or shares such as "8:1:1"; by the source if empty
  std::uint64_t seed = 0;  ///< of split and hash
  std::filesystem::path vocabulary_of = {};          ///< prepared data whose vocabulary is taken and grown
  bool overwrite = false;                            ///< remove prepared data in `out` first
  std::int64_t chunk_bytes = std::int64_t{1} << 25;  ///< text that one part is made of
};

/// Which rows are for what, by row number alone.
class RowSplit {
 public:
  /// Throws ConfigError for a rule that is none. `source` decides what "random" is: 9:0:1, avazu 4:0:1,
  /// movielens 8:1:1.
  RowSplit(const std::string& rule, const std::string& source, std::uint64_t seed);
  /// True where the number of all rows must be known first.
  bool needs_total() const { return sequential_; }
  void set_total(std::int64_t rows) { total_ = rows; }
  TabularSplit of(std::int64_t row) const;
  /// False where no row can be of that split.
  bool has(TabularSplit split) const;

 private:
  bool sequential_ = false;
  std::uint64_t seed_;
  std::int64_t total_ = 0;
  std::uint64_t shares_[3] = {0, 0, 0};
};

/// Makes a prepared folder of raw files and returns it. The first pass reads the text and leaves a draft of
/// each chunk in the work folder, about as large as the row files; the second turns drafts into row files and
/// removes them. What an earlier, interrupted call with the same options finished is used again; where all is
/// finished already, nothing is done. Throws DataError (file, line and column of what does not fit),
/// ConfigError (options, a folder that holds something else), IoError (a full disk, for example; what is
/// finished stays), Interrupted.
PreparedFolder prepare_tabular(const PrepareOptions& options);

}  // namespace stoa
