#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stoa/base/json.h"
#include "stoa/data/batch.h"
#include "stoa/data/tabular/folder.h"

namespace stoa {

/// One row as the model reads it.
struct EncodedRow {
  std::vector<std::int32_t> ids;
  std::vector<float> numerics;
};

/// Encodes raw rows for prediction as the rows of a prepared folder were. All functions are thread-safe. They
/// throw DataError, naming `where` and the column, for a value that does not fit and for one that the
/// vocabulary lacks where there is no unknown id.
class RowEncoder {
 public:
  /// Throws DataError like open_tabular_dataset().
  explicit RowEncoder(const std::filesystem::path& folder);

  const TabularSchema& schema() const { return schema_; }
  /// Names of the raw columns, in the order of the raw files.
  std::vector<std::string> columns() const;
  char separator() const { return encoding_.layout.separator; }

  /// A line in the raw files' form, with or without the label's cell.
  EncodedRow from_line(std::string_view line, const std::string& where) const;
  /// A line under a header that names its columns, in any order; columns that are not used may be absent.
  EncodedRow from_line(std::string_view line, std::span<const std::string> header,
                       const std::string& where) const;
  /// An object of raw columns by name; texts, numbers and null. An absent column is an empty cell.
  EncodedRow from_json(const Json& row, const std::string& where) const;

  /// Rows as a batch: `ids` [n, fields] int32, `numerics` [n, numerics] fp32.
  Batch batch(std::span<const EncodedRow> rows) const;

 private:
  EncodedRow encode(const std::vector<std::string>& cells, const std::string& where) const;
  bool used(std::size_t column) const;

  TabularEncoding encoding_;
  TabularSchema schema_;
  std::size_t label_ = 0;  // its column
};

}  // namespace stoa
