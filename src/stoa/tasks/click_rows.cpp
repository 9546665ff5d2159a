#include "stoa/tasks/click_rows.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <iterator>
#include <optional>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/tabular/text_stream.h"

namespace stoa {
namespace {

constexpr int kDeepest = 4;

/// Lines without their ends; a last empty one does not count.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    auto line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

EncodedRow encoded_row(const Json& row, const std::vector<std::int64_t>& sizes, std::size_t numerics,
                       const std::string& where) {
  const auto list = [&](const char* name, std::size_t size) {
    const Json found = row.value(name, Json::array());
    if (!found.is_array() || found.size() != size)
      throw DataError(format("{}: `{}` must be a list of {} numbers", where, name, size));
    return found;
  };
  EncodedRow result;
  const Json ids = list("ids", sizes.size()), numbers = list("numerics", numerics);
  for (std::size_t f = 0; f < sizes.size(); ++f) {
    if (!ids[f].is_number_integer() || ids[f].get<std::int64_t>() < 0 ||
        ids[f].get<std::int64_t>() >= sizes[f])
      throw DataError(
          format("{}: id {} of field {} is not from 0 to {}", where, ids[f].dump(), f, sizes[f] - 1));
    result.ids.push_back(ids[f].get<std::int32_t>());
  }
  for (const Json& number : numbers) {
    if (!number.is_number() || !std::isfinite(number.get<float>()))
      throw DataError(format("{}: {} in `numerics` is no finite number", where, number.dump()));
    result.numerics.push_back(number.get<float>());
  }
  return result;
}

Json parse_object(std::string_view line, const std::string& where) {
  // the parser takes any depth, but what copies or prints a value calls itself for each level
  const auto check = [&](int depth, Json::parse_event_t, const Json&) {
    if (depth > kDeepest)
      throw DataError(format("{}: values are nested deeper than {} levels", where, kDeepest));
    return true;
  };
  Json row;
  try {
    row = Json::parse(line, check);
  } catch (const Json::parse_error& error) {
    throw DataError(format("{}, column {}: this is no JSON object", where, error.byte));
  } catch (const Json::out_of_range&) {
    throw DataError(format("{}: a number is too large for 64 bits", where));
  }
  if (!row.is_object()) throw DataError(format("{}: a JSON object is needed", where));
  return row;
}

}  // namespace

std::vector<EncodedRow> parse_rows(std::string_view text, const std::string& where,
                                   const std::vector<std::int64_t>& sizes, std::size_t numerics,
                                   const std::function<const RowEncoder&()>& encoder) {
  const auto lines = lines_of(without_byte_order_mark(text));
  std::vector<EncodedRow> rows;
  std::optional<RowHeader> header;
  bool first = true;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string line_name = format("{}, line {}", where, i + 1);
    if (lines[i].find_first_not_of(' ') == std::string_view::npos) continue;  // tabs are empty cells
    const bool may_be_header = std::exchange(first, false);
    const auto start = lines[i].find_first_not_of(" \t");
    if (start != std::string_view::npos && lines[i][start] == '{') {
      const Json row = parse_object(lines[i], line_name);
      rows.push_back(row.contains("ids") ? encoded_row(row, sizes, numerics, line_name)
                                         : encoder().from_json(row, line_name));
      continue;
    }
    if (may_be_header) header = encoder().header(lines[i], line_name);
    if (may_be_header && header) continue;
    rows.push_back(header ? encoder().from_line(lines[i], *header, line_name)
                          : encoder().from_line(lines[i], line_name));
  }
  if (rows.empty()) throw DataError(format("{}: there is no row to score", where));
  return rows;
}

std::vector<EncodedRow> read_rows(const std::string& file, const std::vector<std::int64_t>& sizes,
                                  std::size_t numerics, const std::function<const RowEncoder&()>& encoder) {
  if (file != "-") return parse_rows(read_file(file), file, sizes, numerics, encoder);
  const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  return parse_rows(text, "standard input", sizes, numerics, encoder);
}

}  // namespace stoa
