#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "stoa/data/tabular/layout.h"

namespace stoa {

// The key of a categorical value, 64 bits, stands for it everywhere but in vocabularies' texts. That of kHex
// is the digits from the left, then their number, so that keys sort as the texts do, and 0 for an empty cell;
// that of kInteger is the number with its sign bit turned, so that keys sort as the numbers do; that of kText
// is a hash of the text.

std::uint64_t key_of_integer(std::int64_t value);
std::uint64_t key_of_text(std::string_view text);
/// False where `cell` is not up to 8 hexadecimal digits, empty or "-1".
bool key_of_hex(std::string_view cell, std::uint64_t& key);
/// The value that a key of type kHex or kInteger stands for.
std::string text_of_key(CellType type, std::uint64_t key);

/// Texts that another file gives for whole numbers (a film's genres for its number), for Derivation::kJoined.
struct Joins {
  std::vector<std::string> names;  ///< of the texts: "genres", "year"
  std::map<std::int64_t, std::vector<std::string>> texts;

  /// "-1" for a number that has no text.
  std::string_view text(std::int64_t number, std::size_t join) const;
  Json to_json() const;
  /// Throws DataError naming `where`.
  static Joins from_json(const Json& json, const std::string& where);
};

/// Rows of text as columns of values; each vector has room for `capacity` rows. Which one a column fills is
/// its type's.
struct ParsedRows {
  ParsedRows(const RawLayout& layout, std::size_t capacity);

  std::size_t capacity, rows = 0;
  std::vector<std::vector<std::uint64_t>> keys;      ///< kText, kHex, kInteger
  std::vector<std::vector<std::string_view>> texts;  ///< kText
  std::vector<std::vector<double>> numbers;          ///< kNumber; NaN for an empty cell
  std::vector<std::uint8_t> labels;
  std::vector<std::unique_ptr<std::string>> unquoted;  ///< what texts point to that stood in quotes
};

/// Where a row stands, for messages: its file and line, and the number there of each column of the layout,
/// from 1; 0 for a column that has none, as in JSON.
struct RowPlace {
  std::string where;
  std::vector<std::size_t> columns;

  /// "clicks.csv:7, column 3 (hour)".
  std::string of(const RawLayout& layout, std::size_t column) const;
};

/// Cells of one row, without separators and quotes, as row 0 of `rows`; the label's cell is not looked at.
/// Throws DataError naming place and column.
void parse_cells(const RawLayout& layout, const std::vector<std::string>& cells, const RowPlace& place,
                 ParsedRows& rows);

/// Parses lines. Thread-safe.
class RowParser {
 public:
  /// `file` is named in messages.
  RowParser(const RawLayout& layout, std::string file);

  /// Parses whole lines from the front of `text` until `rows` is full or the text ends, and returns the bytes
  /// used. `texts` point into `text`. `line` is the number of the first line. Throws DataError with file,
  /// line and column for a wrong number of columns, an id that is not hexadecimal or too long, a number that
  /// is not finite, a label that is not 0 or 1.
  std::size_t parse(std::string_view text, std::int64_t line, ParsedRows& rows) const;

 private:
  void parse_line(std::string_view line, std::int64_t number, std::size_t row, ParsedRows& rows) const;
  std::size_t parse_unusual(std::string_view line, std::size_t position, std::int64_t number, std::size_t row,
                            std::size_t column, ParsedRows& rows) const;

  RawLayout layout_;
  std::vector<CellType> types_;  // of the columns
  std::string file_;
};

/// The keys of one field of parsed rows, in `scratch` where they are derived. `texts` gets the texts of text
/// fields.
const std::uint64_t* field_keys(const RawLayout& layout, const FieldLayout& field, const ParsedRows& rows,
                                const Joins& joins, std::vector<std::uint64_t>& scratch,
                                std::vector<std::string_view>& texts);

}  // namespace stoa
