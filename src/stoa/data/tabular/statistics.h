#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "stoa/base/json.h"
#include "stoa/data/tabular/folder.h"

namespace stoa {

/// How the ids of one field are spread over the training rows.
struct FieldStatistics {
  std::string name;
  std::int64_t size = 0;
  bool has_unknown = false;
  std::int64_t seen = 0;     ///< ids that occur in training rows, the unknown one not counted
  std::int64_t once = 0;     ///< ids that occur in just one
  std::int64_t unknown = 0;  ///< training rows whose value is unknown
  /// Share of training rows that the k most frequent ids cover, for rising k: 1, 2, 5, 10, 20 ... all.
  std::vector<std::pair<std::int64_t, double>> coverage;
  std::int64_t median = 0, ninety = 0, ninety_nine = 0, most = 0;  ///< quantiles of the seen ids' counts
  std::vector<std::pair<std::string, std::int64_t>>
      top;  ///< most frequent values; ids with hashed vocabularies

  double covered_by(std::int64_t k) const;
};

/// What a prepared folder holds.
struct TabularStatistics {
  struct Split {
    std::string name;
    std::int64_t rows = 0, positives = 0;
  };
  std::string source, vocabulary, vocabulary_hash, grown_from;
  std::vector<Split> splits;  ///< those that have rows
  std::vector<FieldStatistics> fields;
  std::vector<std::pair<std::string, TabularEncoding::Range>> numerics;

  std::int64_t ids() const;  ///< of all fields
  Json to_json() const;
};

/// Reads the schema and the counts; the row files are not looked at. Throws DataError.
TabularStatistics describe_tabular(const std::filesystem::path& folder);

/// The statistics of one field's training counts.
FieldStatistics field_statistics(const std::string& name, const std::vector<std::uint32_t>& counts,
                                 bool has_unknown);

}  // namespace stoa
