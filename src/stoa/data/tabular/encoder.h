#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stoa/base/json.h"
#include "stoa/data/tabular/folder.h"

namespace stoa {

/// One row as the model reads it.
struct EncodedRow {
  std::vector<std::int32_t> ids;
  std::vector<float> numerics;
};

/// The first line of rows to score: the names of its columns and what stands between them.
struct RowHeader {
  std::vector<std::string> names;
  char separator = ',';
};

/// Encodes raw rows for prediction as the rows of a prepared folder were. All functions are thread-safe. They
/// throw DataError, naming `where` and the column, for a value that does not fit and for one that the
/// vocabulary lacks where there is no unknown id.
class RowEncoder {
 public:
  /// Throws DataError like open_tabular_dataset().
  explicit RowEncoder(const std::filesystem::path& folder);

  const TabularSchema& schema() const { return schema_; }
  /// A line that is a header, as most of its cells are names of raw columns, between the raw files'
  /// separators or commas; else nothing. Throws where it lacks a column that is needed.
  std::optional<RowHeader> header(std::string_view line, const std::string& where) const;

  /// A line in the raw files' form, with or without the label's cell.
  EncodedRow from_line(std::string_view line, const std::string& where) const;
  /// A line under such a header, in any order; columns that are not used may be absent, and others be there.
  EncodedRow from_line(std::string_view line, const RowHeader& header, const std::string& where) const;
  /// An object of raw columns by name; texts, numbers and null. An absent column is an empty cell.
  EncodedRow from_json(const Json& row, const std::string& where) const;

 private:
  EncodedRow encode(const std::vector<std::string>& cells, const RowPlace& place) const;
  std::vector<std::string> split(std::string_view line, char separator, const std::string& where) const;
  std::vector<std::string> columns() const;
  bool used(std::size_t column) const;

  TabularEncoding encoding_;
  TabularSchema schema_;
  std::size_t label_ = 0;  // its column
};

}  // namespace stoa
