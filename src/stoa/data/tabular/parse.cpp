#include "stoa/data/tabular/parse.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/tabular/hash.h"

namespace stoa {
namespace {

constexpr std::uint64_t kTextSeed = 0x53746f61;
constexpr std::string_view kMissing = "-1";

/// Values of hexadecimal digits; negative for all other characters.
constexpr std::array<std::int64_t, 256> kDigits = [] {
  std::array<std::int64_t, 256> digits{};
  digits.fill(-1);
  for (int i = 0; i < 10; ++i) digits['0' + i] = i;
  for (int i = 0; i < 6; ++i) digits['a' + i] = digits['A' + i] = 10 + i;
  return digits;
}();

std::int64_t digit(char c) {
  return kDigits[static_cast<unsigned char>(c)];
}

constexpr std::uint64_t in_all_bytes(std::uint64_t byte) {
  return byte * 0x0101010101010101u;
}

std::uint64_t eight_bytes(const char* p) {
  std::uint64_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

/// High bits of the bytes of a word below 0x80 that are at least `low` and below `end`.
constexpr std::uint64_t bytes_between(std::uint64_t word, std::uint64_t low, std::uint64_t end) {
  return (word + in_all_bytes(0x80 - low)) & ~(word + in_all_bytes(0x80 - end)) & in_all_bytes(0x80);
}

/// The number that eight hexadecimal digits stand for; false where one of them is none.
bool eight_hex_digits(std::uint64_t word, std::uint64_t& value) {
  const std::uint64_t letters = bytes_between(word | in_all_bytes(0x20), 'a', 'f' + 1);
  const std::uint64_t digits = bytes_between(word, '0', '9' + 1);
  if ((word & in_all_bytes(0x80)) != 0 || (letters | digits) != in_all_bytes(0x80)) return false;
  value =
      __builtin_bswap64((word & in_all_bytes(15)) + (letters >> 7) * 9);  // a byte each, the first highest
  value = (value | value >> 4) & 0x00ff00ff00ff00ffu;
  value = (value | value >> 8) & 0x0000ffff0000ffffu;
  value = (value | value >> 16) & 0xffffffffu;
  return true;
}

/// The same of decimal digits.
bool eight_digits(std::uint64_t word, std::uint64_t& value) {
  if ((word & in_all_bytes(0x80)) != 0 || bytes_between(word, '0', '9' + 1) != in_all_bytes(0x80))
    return false;
  value = word - in_all_bytes('0');  // a byte each, the first lowest; then pairs, then fours
  value = (10 * value + (value >> 8)) & 0x00ff00ff00ff00ffu;
  value = (100 * value + (value >> 16)) & 0x0000ffff0000ffffu;
  value = (10000 * value + (value >> 32)) & 0xffffffffu;
  return true;
}

/// Length of the cell that a word begins with, 8 where it has no separator; `separators` in all bytes.
std::size_t cell_length(std::uint64_t word, std::uint64_t separators) {
  const std::uint64_t different = word ^ separators;
  const std::uint64_t equal = (different - in_all_bytes(1)) & ~different & in_all_bytes(0x80);
  return equal == 0 ? 8 : static_cast<std::size_t>(std::countr_zero(equal)) / 8;
}

bool parse_integer(std::string_view cell, std::int64_t& value) {
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  return error == std::errc() && end == cell.data() + cell.size();
}

bool parse_number(std::string_view cell, double& value) {
  std::int64_t whole = 0;  // most numbers of click logs are: shorter work
  if (cell.size() <= 15 && parse_integer(cell, whole)) {
    value = static_cast<double>(whole);
    return true;
  }
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  return error == std::errc() && end == cell.data() + cell.size() && std::isfinite(value);
}

/// What of a cell stands in a message: printable, and not long.
std::string shown(std::string_view cell) {
  std::string text(cell.substr(0, 40));
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 32 || static_cast<unsigned char>(c) >= 127) c = '?';
  return cell.size() > text.size() ? text + "..." : text;
}

std::int64_t integer_of_key(std::uint64_t key) {
  return static_cast<std::int64_t>(key ^ (std::uint64_t{1} << 63));
}

std::int64_t weekday_of(std::int64_t days_since_1970) {
  return ((days_since_1970 + 4) % 7 + 7) % 7;  // that day was a Thursday
}

/// Day of an Avazu stamp YYMMDDHH; the missing stamp -1 and impossible dates have none.
bool day_of_stamp(std::int64_t stamp, std::int64_t& day) {
  using namespace std::chrono;
  if (stamp < 0 || stamp > 99'999'999) return false;
  const year_month_day date{year(2000 + static_cast<int>(stamp / 1'000'000)),
                            month(static_cast<unsigned>(stamp / 10'000 % 100)),
                            std::chrono::day(static_cast<unsigned>(stamp / 100 % 100))};
  if (!date.ok()) return false;
  day = sys_days(date).time_since_epoch().count();
  return true;
}

std::int64_t bucket_of(double value) {
  if (std::isnan(value)) return 0;
  if (value > 2) return static_cast<std::int64_t>(std::floor(std::log(value) * std::log(value)));
  constexpr double kLeast = -9.2e18;
  return static_cast<std::int64_t>(std::max(value, kLeast));
}

std::int64_t derived(Derivation derivation, std::int64_t value) {
  std::int64_t day = 0;
  switch (derivation) {
    case Derivation::kStampHour:
      return day_of_stamp(value, day) ? value % 100 : -1;
    case Derivation::kStampWeekday:
      return day_of_stamp(value, day) ? weekday_of(day) : -1;
    case Derivation::kStampWeekend:
      return day_of_stamp(value, day) ? weekday_of(day) % 6 == 0 : -1;
    case Derivation::kUnixHour:
      return (value % 86400 + 86400) % 86400 / 3600;
    case Derivation::kUnixWeekday:
      return weekday_of(value / 86400 - (value % 86400 < 0));
    default:
      return value;
  }
}

}  // namespace

std::uint64_t key_of_integer(std::int64_t value) {
  return static_cast<std::uint64_t>(value) ^ (std::uint64_t{1} << 63);
}

std::uint64_t key_of_text(std::string_view text) {
  return hash64(text.empty() ? kMissing : text, kTextSeed);
}

bool key_of_hex(std::string_view cell, std::uint64_t& key) {
  key = 0;
  if (cell.empty() || cell == kMissing) return true;
  if (cell.size() > 8) return false;
  std::int64_t value = 0, all = 0;
  for (const char c : cell) {
    all |= digit(c);
    value = value << 4 | (digit(c) & 15);
  }
  key = static_cast<std::uint64_t>(value) << (4 * (8 - cell.size()) + 4) | cell.size();
  return all >= 0;
}

std::string text_of_key(CellType type, std::uint64_t key) {
  if (type == CellType::kInteger) return format("{}", integer_of_key(key));
  if (key == 0) return std::string(kMissing);
  const std::size_t digits = std::min<std::size_t>(key & 15, 8);
  return format("{:0{}x}", key >> (4 * (8 - digits) + 4), digits);
}

std::string_view Joins::text(std::int64_t number, std::size_t join) const {
  const auto found = texts.find(number);
  return found == texts.end() || found->second.at(join).empty() ? kMissing
                                                                : std::string_view(found->second[join]);
}

Json Joins::to_json() const {
  Json json = {{"names", names}, {"texts", Json::object()}};
  for (const auto& [number, list] : texts) json["texts"][format("{}", number)] = list;
  return json;
}

Joins Joins::from_json(const Json& json, const std::string& where) {
  Joins joins;
  try {
    joins.names = json.at("names");
    for (const auto& [number, list] : json.at("texts").items()) {
      std::int64_t value = 0;
      const std::vector<std::string> texts = list;
      if (!parse_integer(number, value) || texts.size() != joins.names.size())
        throw DataError(
            format("{}: the entry `{}` is damaged; prepare the data again", where, shown(number)));
      joins.texts.emplace(value, texts);
    }
  } catch (const Json::exception& error) {
    throw DataError(format("{}: cannot be read ({}); prepare the data again", where, error.what()));
  }
  return joins;
}

ParsedRows::ParsedRows(const RawLayout& layout, std::size_t capacity)
    : capacity(capacity),
      keys(layout.columns.size()),
      texts(layout.columns.size()),
      numbers(layout.columns.size()),
      labels(capacity) {
  for (std::size_t c = 0; c < layout.columns.size(); ++c) {
    const CellType type = layout.columns[c].type;
    if (type == CellType::kText || type == CellType::kHex || type == CellType::kInteger)
      keys[c].resize(capacity);
    if (type == CellType::kText) texts[c].resize(capacity);
    if (type == CellType::kNumber) numbers[c].resize(capacity);
  }
}

namespace {

/// The cell that is being parsed, and how to refuse it.
struct Cursor {
  const RawLayout& layout;
  const std::string& file;
  std::int64_t line = 0;
  std::size_t row = 0, column = 0;
  const RowPlace* given = nullptr;  ///< where the row is not a line of `file`

  [[noreturn]] void fail(std::string_view cell, const char* needed) const {
    const std::string where = given != nullptr ? given->of(layout, column)
                                               : format("{}:{}, column {} ({})", file, line, column + 1,
                                                        layout.columns[column].name);
    throw DataError(format("{}: `{}` {}", where, shown(cell), needed));
  }
};

void parse_cell(std::string_view cell, const Cursor& at, ParsedRows& rows) {
  const std::size_t column = at.column;
  switch (at.layout.columns[column].type) {
    case CellType::kSkip:
      return;
    case CellType::kLabel: {
      if (cell == "0" || cell == "1") {
        rows.labels[at.row] =
            at.layout.label_at_least ? (cell == "1" ? 1.0 : 0.0) >= *at.layout.label_at_least : cell == "1";
        return;
      }
      double value = 0;
      if (cell.empty() || !parse_number(cell, value)) at.fail(cell, "is no label; labels are numbers");
      if (!at.layout.label_at_least && value != 0 && value != 1)
        at.fail(cell, "is no label; labels are 0 or 1");
      rows.labels[at.row] = at.layout.label_at_least ? value >= *at.layout.label_at_least : value == 1;
      return;
    }
    case CellType::kText:
      rows.texts[column][at.row] = cell.empty() ? kMissing : cell;
      rows.keys[column][at.row] = key_of_text(cell);
      return;
    case CellType::kHex:
      if (!key_of_hex(cell, rows.keys[column][at.row]))
        at.fail(cell, "is not a hexadecimal id of up to 8 digits");
      return;
    case CellType::kInteger: {
      std::int64_t value = -1;
      if (!cell.empty() && !parse_integer(cell, value)) at.fail(cell, "is not a whole number of 64 bits");
      rows.keys[column][at.row] = key_of_integer(value);
      return;
    }
    case CellType::kNumber: {
      double value = std::numeric_limits<double>::quiet_NaN();
      if (!cell.empty() && !parse_number(cell, value)) at.fail(cell, "is not a finite number");
      rows.numbers[column][at.row] = value;
      return;
    }
  }
}

// A quoted cell: the text between its quotes, doubled ones halved. `position` moves behind it.
std::string_view take_quoted(std::string_view line, std::size_t& position, const Cursor& at,
                             ParsedRows& rows) {
  const std::size_t begin = position + 1;
  bool doubled = false;
  std::size_t end = begin;
  while (true) {
    end = line.find('"', end);
    if (end == std::string_view::npos)
      at.fail(line.substr(position), "has a quote that does not end on its line");
    if (end + 1 >= line.size() || line[end + 1] != '"') break;
    doubled = true;
    end += 2;
  }
  position = end + 1;
  if (position < line.size() && line[position] != at.layout.separator)
    at.fail(line.substr(begin - 1), "goes on behind its closing quote");
  const std::string_view raw = line.substr(begin, end - begin);
  if (!doubled) return raw;
  auto text = std::make_unique<std::string>();
  for (std::size_t i = 0; i < raw.size(); ++i) {
    *text += raw[i];
    if (raw[i] == '"') ++i;
  }
  return *rows.unquoted.emplace_back(std::move(text));
}

constexpr std::size_t kUnusual = std::numeric_limits<std::size_t>::max();

/// Parses the cell that `line` begins with where its first eight bytes tell that it is a usual one: an id of
/// eight digits, a whole number of up to seven, an empty number. Returns its length, or kUnusual with nothing
/// done.
std::size_t usual_cell(std::string_view line, char separator, CellType type, std::size_t column,
                       std::size_t row, ParsedRows& rows) {
  if (line.size() < 8) return kUnusual;
  const std::uint64_t word = eight_bytes(line.data());
  std::uint64_t value = 0;
  if (type == CellType::kHex) {
    if ((line.size() > 8 && line[8] != separator) || !eight_hex_digits(word, value)) return kUnusual;
    rows.keys[column][row] = value << 4 | 8;
    return 8;
  }
  if (type != CellType::kNumber && type != CellType::kInteger) return kUnusual;
  const std::size_t length = cell_length(word, in_all_bytes(static_cast<unsigned char>(separator)));
  if (length == 8) return kUnusual;
  if (length > 0) {
    const std::uint64_t zeros = in_all_bytes('0') >> (8 * length);  // in front of the digits
    if (!eight_digits(word << (64 - 8 * length) | zeros, value)) return kUnusual;
  }
  if (type == CellType::kNumber)
    rows.numbers[column][row] =
        length == 0 ? std::numeric_limits<double>::quiet_NaN() : static_cast<double>(value);
  else
    rows.keys[column][row] = key_of_integer(length == 0 ? -1 : static_cast<std::int64_t>(value));
  return length;
}

}  // namespace

std::string RowPlace::of(const RawLayout& layout, std::size_t column) const {
  const std::string& name = layout.columns.at(column).name;
  return columns.at(column) > 0 ? format("{}, column {} ({})", where, columns[column], name)
                                : format("{}, column `{}`", where, name);
}

void parse_cells(const RawLayout& layout, const std::vector<std::string>& cells, const RowPlace& place,
                 ParsedRows& rows) {
  rows.rows = 1;
  for (Cursor at{layout, place.where, 0, 0, 0, &place}; at.column < cells.size(); ++at.column)
    if (layout.columns[at.column].type != CellType::kLabel) parse_cell(cells[at.column], at, rows);
}

RowParser::RowParser(const RawLayout& layout, std::string file) : layout_(layout), file_(std::move(file)) {
  for (const RawColumn& column : layout.columns) types_.push_back(column.type);
}

std::size_t RowParser::parse(std::string_view text, std::int64_t line, ParsedRows& rows) const {
  std::size_t used = 0;
  rows.unquoted.clear();
  for (rows.rows = 0; rows.rows < rows.capacity && used < text.size(); ++rows.rows) {
    const char* const begin = text.data() + used;
    const void* const found = std::memchr(begin, '\n', text.size() - used);
    const std::size_t length = found != nullptr
                                   ? static_cast<std::size_t>(static_cast<const char*>(found) - begin)
                                   : text.size() - used;
    used += std::min(length + 1, text.size() - used);
    const std::size_t stripped = length > 0 && begin[length - 1] == '\r' ? length - 1 : length;
    parse_line({begin, stripped}, line + static_cast<std::int64_t>(rows.rows), rows.rows, rows);
  }
  return used;
}

// Any cell: returns its length, quotes included.
std::size_t RowParser::parse_unusual(std::string_view line, std::size_t position, std::int64_t number,
                                     std::size_t row, std::size_t column, ParsedRows& rows) const {
  const Cursor at{layout_, file_, number, row, column};
  if (layout_.quotes && position < line.size() && line[position] == '"') {
    std::size_t end = position;
    parse_cell(take_quoted(line, end, at, rows), at, rows);
    return end - position;
  }
  const std::string_view cell = line.substr(position, line.find(layout_.separator, position) - position);
  parse_cell(cell, at, rows);
  return cell.size();
}

void RowParser::parse_line(std::string_view line, std::int64_t number, std::size_t row,
                           ParsedRows& rows) const {
  const std::size_t count = types_.size();
  std::size_t position = 0;
  for (std::size_t column = 0; column < count; ++column, ++position) {
    std::size_t length =
        usual_cell(line.substr(position), layout_.separator, types_[column], column, row, rows);
    if (length == kUnusual) length = parse_unusual(line, position, number, row, column, rows);
    position += length;
    const bool ended = position == line.size(), last = column + 1 == count;
    if (ended != last)
      throw DataError(
          format("{}:{}, column {}: the line {} {} columns, {} are needed; put the line right or "
                 "remove it",
                 file_, number, column + 1, ended ? "ends after" : "has more than", column + 1, count));
  }
}

const std::uint64_t* field_keys(const RawLayout& layout, const FieldLayout& field, const ParsedRows& rows,
                                const Joins& joins, std::vector<std::uint64_t>& scratch,
                                std::vector<std::string_view>& texts) {
  const CellType type = layout.columns[field.column].type;
  texts.clear();
  if (field.derivation == Derivation::kValue) {
    if (type == CellType::kText)
      texts.assign(rows.texts[field.column].begin(),
                   rows.texts[field.column].begin() + static_cast<std::ptrdiff_t>(rows.rows));
    return rows.keys[field.column].data();
  }
  scratch.resize(rows.rows);
  for (std::size_t i = 0; i < rows.rows; ++i) {
    if (field.derivation == Derivation::kBucket) {
      scratch[i] = key_of_integer(bucket_of(rows.numbers[field.column][i]));
      continue;
    }
    const std::int64_t value = integer_of_key(rows.keys[field.column][i]);
    if (field.derivation == Derivation::kJoined) {
      texts.push_back(joins.text(value, field.join));
      scratch[i] = key_of_text(texts.back());
    } else {
      scratch[i] = key_of_integer(derived(field.derivation, value));
    }
  }
  return scratch.data();
}

}  // namespace stoa
