#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stoa/base/json.h"

namespace stoa {

/// What the cells of a raw column hold.
enum class CellType {
  kSkip,     ///< not read
  kLabel,    ///< 0 or 1, or a rating (see RawLayout::label_at_least)
  kText,     ///< any text; an empty cell counts as the text "-1"
  kHex,      ///< up to 8 hexadecimal digits, or empty
  kInteger,  ///< a whole number; an empty cell counts as -1
  kNumber    ///< a finite number; an empty cell counts as 0
};

/// How a field's value comes from the cell of its column.
enum class Derivation {
  kValue,         ///< the cell itself
  kBucket,        ///< of a number v: floor(ln(v)^2) where v > 2, else v without its fraction (cowclip.md 4)
  kStampHour,     ///< of YYMMDDHH: the hour
  kStampWeekday,  ///< of YYMMDDHH: 0 (Sunday) to 6
  kStampWeekend,  ///< of YYMMDDHH: 1 on Saturday and Sunday, else 0
  kUnixHour,      ///< of seconds since 1970, UTC: the hour
  kUnixWeekday,   ///< of seconds since 1970, UTC: 0 (Sunday) to 6
  kJoined         ///< a text that another file gives for the whole number in the cell
};

struct RawColumn {
  std::string name;
  CellType type = CellType::kSkip;
};

/// A categorical column of the prepared data.
struct FieldLayout {
  std::string name;
  std::size_t column = 0;  ///< raw column it is made of
  Derivation derivation = Derivation::kValue;
  std::size_t join = 0;  ///< with kJoined: which of the joined texts

  friend bool operator==(const FieldLayout&, const FieldLayout&) = default;
};

/// A numeric column of the prepared data.
struct NumericLayout {
  std::string name;
  std::size_t column = 0;

  friend bool operator==(const NumericLayout&, const NumericLayout&) = default;
};

/// How raw text is cut into cells and what is made of them.
struct RawLayout {
  std::string source;  ///< "criteo", "avazu", "csv" or "movielens"
  char separator = ',';
  bool header = false;
  bool quotes = false;  ///< cells may stand in double quotes
  std::vector<RawColumn> columns = {};
  /// The label is 1 from this value on; without it the cell is 0 or 1.
  std::optional<double> label_at_least = {};
  std::vector<FieldLayout> fields = {};
  std::vector<NumericLayout> numerics = {};

  /// The type that a field's values have and sort by: kText, kHex or kInteger.
  CellType value_type(const FieldLayout& field) const;
  Json to_json() const;
  /// Throws DataError naming `where` for JSON that is no layout.
  static RawLayout from_json(const Json& json, const std::string& where);
};

/// Criteo's train.txt: label, I1-I13, C1-C26, tabs, no header. With `bars` the numbers become bucketed
/// fields.
RawLayout criteo_layout(bool bars);

/// Avazu's train file under its header line. With `bars` the hour becomes hour, weekday and weekend.
/// Throws DataError naming a column that is missing.
RawLayout avazu_layout(bool bars, std::string_view header, const std::string& file);

/// MovieLens' ratings file under its header line: user, movie, genres, year, hour, weekday; label rating
/// >= 4.
RawLayout movielens_layout(std::string_view header, const std::string& file);

/// Any table, as its schema file (docs/formats.md) says; `header` is the first line of `file`, which is only
/// looked at where the schema says that there is a header. Throws ConfigError naming the line of the schema,
/// DataError naming the file whose header does not fit.
RawLayout csv_layout(const std::filesystem::path& schema, bool bars, std::string_view header,
                     const std::string& file);

/// Cells of one line, quotes taken off. Throws DataError where a quoted cell does not end.
std::vector<std::string> split_line(std::string_view line, char separator, bool quotes,
                                    const std::string& where);

}  // namespace stoa
