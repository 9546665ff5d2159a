#include "stoa/data/tabular/encoder.h"

#include <algorithm>
#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"

namespace stoa {
namespace {

/// A JSON value as the cell of a raw file.
std::string cell_text(const Json& value, const std::string& where, const std::string& name) {
  if (value.is_null()) return "";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer() || value.is_number_unsigned()) return value.dump();
  if (value.is_number_float()) return format("{}", value.get<double>());
  throw DataError(
      format("{}: column `{}` is {}; a text or a number is needed", where, name, value.type_name()));
}

}  // namespace

RowEncoder::RowEncoder(const std::filesystem::path& folder)
    : encoding_(PreparedFolder::open(folder).encoding), schema_(encoding_.schema()) {
  const auto& columns = encoding_.layout.columns;
  const auto label = std::ranges::find(columns, CellType::kLabel, &RawColumn::type);
  label_ = static_cast<std::size_t>(label - columns.begin());
}

std::vector<std::string> RowEncoder::columns() const {
  std::vector<std::string> names;
  for (const RawColumn& column : encoding_.layout.columns) names.push_back(column.name);
  return names;
}

bool RowEncoder::used(std::size_t column) const {
  const CellType type = encoding_.layout.columns[column].type;
  return type != CellType::kSkip && type != CellType::kLabel;
}

std::vector<std::string> RowEncoder::split(std::string_view line, char separator,
                                           const std::string& where) const {
  if (line.ends_with('\r')) line.remove_suffix(1);
  return split_line(line, separator, encoding_.layout.quotes, where);
}

std::optional<RowHeader> RowEncoder::header(std::string_view line, const std::string& where) const {
  RowHeader header;
  if (line.find(encoding_.layout.separator) != std::string_view::npos)
    header.separator = encoding_.layout.separator;
  header.names = split(line, header.separator, where);
  const std::vector<std::string> known = columns();
  const auto in = [](const std::vector<std::string>& names, const std::string& name) {
    return std::ranges::find(names, name) != names.end();
  };
  const auto found =
      std::ranges::count_if(header.names, [&](const std::string& name) { return in(known, name); });
  if (2 * static_cast<std::size_t>(found) <= header.names.size()) return std::nullopt;
  for (std::size_t c = 0; c < known.size(); ++c)
    if (used(c) && !in(header.names, known[c]))
      throw DataError(
          format("{}: the header has no column `{}`{}", where, known[c], suggestion(known[c], header.names)));
  return header;
}

EncodedRow RowEncoder::from_line(std::string_view line, const std::string& where) const {
  std::vector<std::string> cells = split(line, encoding_.layout.separator, where);
  const std::size_t count = encoding_.layout.columns.size();
  const bool unlabelled = cells.size() + 1 == count && label_ < count;
  if (unlabelled) cells.insert(cells.begin() + static_cast<std::ptrdiff_t>(label_), "");
  if (cells.size() != count)
    throw DataError(format("{}, column {}: {} columns, needed are {}, or {} without the label", where,
                           std::min(cells.size(), count) + 1, cells.size(), count, count - 1));
  RowPlace place{where, {}};
  for (std::size_t c = 0; c < count; ++c) place.columns.push_back(unlabelled && c > label_ ? c : c + 1);
  return encode(cells, place);
}

EncodedRow RowEncoder::from_line(std::string_view line, const RowHeader& header,
                                 const std::string& where) const {
  const std::vector<std::string>& given = header.names;
  const std::vector<std::string> found = split(line, header.separator, where);
  if (found.size() != given.size())
    throw DataError(format("{}, column {}: {} columns under a header of {}", where,
                           std::min(found.size(), given.size()) + 1, found.size(), given.size()));
  const std::vector<std::string> names = columns();
  std::vector<std::string> cells(names.size());
  RowPlace place{where, std::vector<std::size_t>(names.size())};
  for (std::size_t c = 0; c < cells.size(); ++c) {
    const auto column = static_cast<std::size_t>(std::ranges::find(given, names[c]) - given.begin());
    if (column == given.size()) continue;
    cells[c] = found[column];
    place.columns[c] = column + 1;
  }
  return encode(cells, place);
}

EncodedRow RowEncoder::from_json(const Json& row, const std::string& where) const {
  if (!row.is_object())
    throw DataError(format("{}: not a JSON object; give one such as {{\"column\": \"value\"}}", where));
  const std::vector<std::string> names = columns();
  std::vector<std::string> cells(names.size());
  for (const auto& [name, value] : row.items()) {
    const auto column = std::ranges::find(names, name);
    if (column == names.end())
      throw DataError(format("{}: no column `{}`{}", where, name, suggestion(name, names)));
    cells[static_cast<std::size_t>(column - names.begin())] = cell_text(value, where, name);
  }
  return encode(cells, {where, std::vector<std::size_t>(names.size())});
}

// Cells of all raw columns, through the parser of the raw files.
EncodedRow RowEncoder::encode(const std::vector<std::string>& cells, const RowPlace& place) const {
  const RawLayout& layout = encoding_.layout;
  ParsedRows rows(layout, 1);
  parse_cells(layout, cells, place, rows);
  EncodedRow row;
  std::vector<std::uint64_t> scratch;
  std::vector<std::string_view> texts;
  for (std::size_t f = 0; f < layout.fields.size(); ++f) {
    const FieldLayout& field = layout.fields[f];
    const std::uint64_t key = *field_keys(layout, field, rows, encoding_.joins, scratch, texts);
    if (encoding_.kind == VocabularyKind::kHash) {
      row.ids.push_back(
          static_cast<std::int32_t>(hashed_id(key, encoding_.hash_seed, f, encoding_.sizes[f])));
      continue;
    }
    const std::uint32_t id = encoding_.values[f]->id(key, texts.empty() ? std::string_view() : texts[0]);
    if (id == Vocabulary::kAbsent)
      throw DataError(format(
          "{}: the value `{}` of field {} was not in the prepared data, whose vocabulary has no unknown id; "
          "prepare them with --vocabulary threshold",
          place.of(layout, field.column),
          texts.empty() ? text_of_key(layout.value_type(field), key) : std::string(texts[0]), field.name));
    row.ids.push_back(static_cast<std::int32_t>(id));
  }
  for (std::size_t m = 0; m < layout.numerics.size(); ++m) {
    const std::size_t column = layout.numerics[m].column;
    row.numerics.push_back(encoding_.ranges[m].scaled(rows.numbers[column][0]));
    if (!std::isfinite(row.numerics.back()))
      throw DataError(format("{}: {}", place.of(layout, column), kBeyondScale));
  }
  return row;
}

}  // namespace stoa
