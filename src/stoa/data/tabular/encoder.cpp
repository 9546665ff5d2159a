#include "stoa/data/tabular/encoder.h"

#include <ATen/ATen.h>

#include <algorithm>

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

EncodedRow RowEncoder::from_line(std::string_view line, const std::string& where) const {
  if (line.ends_with('\r')) line.remove_suffix(1);
  std::vector<std::string> cells =
      split_line(line, encoding_.layout.separator, encoding_.layout.quotes, where);
  const std::size_t count = encoding_.layout.columns.size();
  if (cells.size() + 1 == count && label_ < count)
    cells.insert(cells.begin() + static_cast<std::ptrdiff_t>(label_), "");
  if (cells.size() != count)
    throw DataError(format("{}, column {}: {} columns, needed are {}, or {} without the label", where,
                           std::min(cells.size(), count) + 1, cells.size(), count, count - 1));
  return encode(cells, where);
}

EncodedRow RowEncoder::from_line(std::string_view line, std::span<const std::string> header,
                                 const std::string& where) const {
  if (line.ends_with('\r')) line.remove_suffix(1);
  const auto found = split_line(line, encoding_.layout.separator, encoding_.layout.quotes, where);
  if (found.size() != header.size())
    throw DataError(format("{}, column {}: {} columns under a header of {}", where,
                           std::min(found.size(), header.size()) + 1, found.size(), header.size()));
  std::vector<std::string> cells(encoding_.layout.columns.size());
  for (std::size_t c = 0; c < cells.size(); ++c) {
    const auto place = std::ranges::find(header, encoding_.layout.columns[c].name);
    if (place != header.end()) {
      cells[c] = found[static_cast<std::size_t>(place - header.begin())];
    } else if (used(c)) {
      throw DataError(format("{}: the header has no column `{}`{}", where, encoding_.layout.columns[c].name,
                             suggestion(encoding_.layout.columns[c].name, {header.begin(), header.end()})));
    }
  }
  return encode(cells, where);
}

EncodedRow RowEncoder::from_json(const Json& row, const std::string& where) const {
  if (!row.is_object())
    throw DataError(format("{}: not a JSON object; give one such as {{\"column\": \"value\"}}", where));
  const std::vector<std::string> names = columns();
  std::vector<std::string> cells(names.size());
  for (const auto& [name, value] : row.items()) {
    const auto place = std::ranges::find(names, name);
    if (place == names.end())
      throw DataError(format("{}: no column `{}`{}", where, name, suggestion(name, names)));
    cells[static_cast<std::size_t>(place - names.begin())] = cell_text(value, where, name);
  }
  return encode(cells, where);
}

// Cells of all raw columns, through the parser of the raw files.
EncodedRow RowEncoder::encode(const std::vector<std::string>& cells, const std::string& where) const {
  const RawLayout& layout = encoding_.layout;
  ParsedRows rows(layout, 1);
  parse_cells(layout, cells, where, rows);
  EncodedRow row;
  std::vector<std::uint64_t> scratch;
  std::vector<std::string_view> texts;
  for (std::size_t f = 0; f < layout.fields.size(); ++f) {
    const std::uint64_t key = *field_keys(layout, layout.fields[f], rows, encoding_.joins, scratch, texts);
    if (encoding_.kind == VocabularyKind::kHash) {
      row.ids.push_back(
          static_cast<std::int32_t>(hashed_id(key, encoding_.hash_seed, f, encoding_.sizes[f])));
      continue;
    }
    const std::uint32_t id = encoding_.values[f]->id(key, texts.empty() ? std::string_view() : texts[0]);
    if (id == Vocabulary::kAbsent)
      throw DataError(format(
          "{}, field {}: the value `{}` was not in the prepared data, whose vocabulary has no unknown "
          "id; prepare them with --vocabulary threshold",
          where, layout.fields[f].name,
          texts.empty() ? text_of_key(layout.value_type(layout.fields[f]), key) : std::string(texts[0])));
    row.ids.push_back(static_cast<std::int32_t>(id));
  }
  for (std::size_t m = 0; m < layout.numerics.size(); ++m)
    row.numerics.push_back(encoding_.ranges[m].scaled(rows.numbers[layout.numerics[m].column][0]));
  return row;
}

Batch RowEncoder::batch(std::span<const EncodedRow> rows) const {
  const auto count = static_cast<std::int64_t>(rows.size());
  const auto fields = static_cast<std::int64_t>(schema_.fields.size());
  const auto numerics = static_cast<std::int64_t>(schema_.numerics.size());
  at::Tensor ids = at::empty({count, fields}, at::kInt), numbers = at::empty({count, numerics}, at::kFloat);
  for (std::int64_t i = 0; i < count; ++i) {
    std::ranges::copy(rows[i].ids, ids.data_ptr<std::int32_t>() + i * fields);
    std::ranges::copy(rows[i].numerics, numbers.data_ptr<float>() + i * numerics);
  }
  return {{{"ids", ids}, {"numerics", numbers}}, count};
}

}  // namespace stoa
