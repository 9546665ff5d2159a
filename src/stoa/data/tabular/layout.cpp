#include "stoa/data/tabular/layout.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "stoa/base/config.h"
#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/options.h"
#include "stoa/base/text.h"

namespace stoa {
namespace {

using Types = std::map<std::string, CellType, std::less<>>;

constexpr std::array<std::pair<CellType, const char*>, 6> kTypes{{{CellType::kSkip, "skip"},
                                                                  {CellType::kLabel, "label"},
                                                                  {CellType::kText, "text"},
                                                                  {CellType::kHex, "hex"},
                                                                  {CellType::kInteger, "integer"},
                                                                  {CellType::kNumber, "number"}}};
constexpr std::array<std::pair<Derivation, const char*>, 8> kDerivations{
    {{Derivation::kValue, "value"},
     {Derivation::kBucket, "bucket"},
     {Derivation::kStampHour, "stamp_hour"},
     {Derivation::kStampWeekday, "stamp_weekday"},
     {Derivation::kStampWeekend, "stamp_weekend"},
     {Derivation::kUnixHour, "unix_hour"},
     {Derivation::kUnixWeekday, "unix_weekday"},
     {Derivation::kJoined, "joined"}}};

template <class Names, class Value>
const char* name_of(const Names& names, Value value) {
  return std::ranges::find(names, value, [](const auto& entry) { return entry.first; })->second;
}

template <class Names>
auto value_of(const Names& names, const std::string& name, const std::string& where) {
  for (const auto& [value, known] : names)
    if (name == known) return value;
  throw DataError(format(
      "{}: `{}` is unknown here; it was written by another version, prepare the data again", where, name));
}

/// All columns, with the types of those that are used; the others are skipped. Throws `Refusal` naming
/// `where` for one that is missing or double.
template <class Refusal>
std::vector<RawColumn> typed_columns(const std::vector<std::string>& names, const Types& types,
                                     const std::string& where) {
  std::vector<RawColumn> columns;
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if (!seen.insert(name).second)
      throw Refusal(
          format("{}, column {}: two columns are called `{}`; rename one", where, columns.size() + 1, name));
    const auto found = types.find(name);
    columns.push_back({name, found == types.end() ? CellType::kSkip : found->second});
  }
  for (const auto& [name, type] : types)
    if (seen.count(name) == 0)
      throw Refusal(format("{}: no column `{}` is named there{}", where, name, suggestion(name, names)));
  return columns;
}

/// The same for the columns that a header line names.
std::vector<RawColumn> columns_under(std::string_view header, const RawLayout& layout, const Types& types,
                                     const std::string& file) {
  const std::string where = file + ":1";
  return typed_columns<DataError>(split_line(header, layout.separator, layout.quotes, where), types, where);
}

std::size_t column_of(const RawLayout& layout, std::string_view name) {
  const auto found = std::ranges::find(layout.columns, name, &RawColumn::name);
  return static_cast<std::size_t>(found - layout.columns.begin());
}

void add_field(RawLayout& layout, const std::string& name, const std::string& column, Derivation derivation,
               std::size_t join = 0) {
  layout.fields.push_back({name, column_of(layout, column), derivation, join});
}

/// Numbers as they are, or as bucketed fields.
void add_numbers(RawLayout& layout, const std::vector<std::string>& names, bool bars) {
  for (const std::string& name : names) {
    if (bars)
      add_field(layout, name, name, Derivation::kBucket);
    else
      layout.numerics.push_back({name, column_of(layout, name)});
  }
}

/// What the schema file of a table says.
struct CsvSchema {
  std::string separator = ",", label;
  bool header = true, quotes = true;
  std::vector<std::string> columns, categorical, integer, hex, numeric;
  double label_at_least = 0.5;

  void visit(FieldVisitor& v) {
    v.field("separator", separator, "what stands between cells: one character");
    v.field("header", header, "the first line of each file names the columns");
    v.field("quotes", quotes, "cells may stand in double quotes");
    v.when(!header, "header = false", [&] { v.field("columns", columns, "names of all columns, in order"); });
    v.field("label", label, "column of the label");
    v.field("label_at_least", label_at_least,
            "where given, the label is 1 from this value on; else it is 0 or 1");
    v.field("categorical", categorical, "columns of ids, sorted as text");
    v.field("integer", integer, "columns of ids that are whole numbers, sorted as such");
    v.field("hex", hex, "columns of ids of up to 8 hexadecimal digits");
    v.field("numeric", numeric, "columns of numbers");
  }
};

}  // namespace

std::vector<std::string> split_line(std::string_view line, char separator, bool quotes,
                                    const std::string& where) {
  std::vector<std::string> cells(1);
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == separator) {
      cells.emplace_back();
    } else if (quotes && line[i] == '"' && cells.back().empty()) {
      bool closed = false;
      for (++i; i < line.size() && !closed; ++i) {
        if (line[i] != '"') {
          cells.back() += line[i];
        } else if (i + 1 < line.size() && line[i + 1] == '"') {
          cells.back() += line[i++];
        } else {
          closed = true;
        }
      }
      --i;
      if (!closed || (i + 1 < line.size() && line[i + 1] != separator))
        throw DataError(
            format("{}, column {}: a quoted cell does not end before the next separator; close its quotes",
                   where, cells.size()));
    } else {
      cells.back() += line[i];
    }
  }
  return cells;
}

CellType RawLayout::value_type(const FieldLayout& field) const {
  if (field.derivation == Derivation::kJoined) return CellType::kText;
  if (field.derivation != Derivation::kValue) return CellType::kInteger;
  return columns.at(field.column).type;
}

Json RawLayout::to_json() const {
  Json json = {
      {"source", source}, {"separator", std::string(1, separator)}, {"header", header}, {"quotes", quotes}};
  json["label_at_least"] = label_at_least ? Json(*label_at_least) : Json();
  for (const RawColumn& column : columns)
    json["columns"].push_back({{"name", column.name}, {"type", name_of(kTypes, column.type)}});
  json["fields"] = Json::array();
  for (const FieldLayout& field : fields)
    json["fields"].push_back({{"name", field.name},
                              {"column", field.column},
                              {"derivation", name_of(kDerivations, field.derivation)},
                              {"join", field.join}});
  json["numerics"] = Json::array();
  for (const NumericLayout& numeric : numerics)
    json["numerics"].push_back({{"name", numeric.name}, {"column", numeric.column}});
  return json;
}

RawLayout RawLayout::from_json(const Json& json, const std::string& where) {
  RawLayout layout;
  try {
    layout.source = json.at("source");
    const std::string separator = json.at("separator");
    if (separator.size() != 1) throw DataError(format("{}: the separator is not one character", where));
    layout.separator = separator[0];
    layout.header = json.at("header");
    layout.quotes = json.at("quotes");
    if (!json.at("label_at_least").is_null()) layout.label_at_least = json.at("label_at_least").get<double>();
    for (const Json& item : json.at("columns"))
      layout.columns.push_back({item.at("name"), value_of(kTypes, item.at("type"), where)});
    for (const Json& item : json.at("fields"))
      layout.fields.push_back({item.at("name"), item.at("column"),
                               value_of(kDerivations, item.at("derivation"), where), item.at("join")});
    for (const Json& item : json.at("numerics"))
      layout.numerics.push_back({item.at("name"), item.at("column")});
  } catch (const Json::exception& error) {
    throw DataError(
        format("{}: the layout cannot be read ({}); prepare the data again", where, error.what()));
  }
  const auto outside = [&](const auto& made) { return made.column >= layout.columns.size(); };
  if (std::ranges::any_of(layout.fields, outside) || std::ranges::any_of(layout.numerics, outside))
    throw DataError(format("{}: a field names a column that is not there; prepare the data again", where));
  for (const FieldLayout& field : layout.fields) {
    const CellType cell = layout.columns[field.column].type;
    const bool number = field.derivation == Derivation::kBucket,
               plain = field.derivation == Derivation::kValue;
    const bool id = cell == CellType::kText || cell == CellType::kHex || cell == CellType::kInteger;
    if (plain ? !id : cell != (number ? CellType::kNumber : CellType::kInteger))
      throw DataError(
          format("{}: field `{}` cannot be made of its column; prepare the data again", where, field.name));
  }
  for (const NumericLayout& numeric : layout.numerics)
    if (layout.columns[numeric.column].type != CellType::kNumber)
      throw DataError(
          format("{}: `{}` is no column of numbers; prepare the data again", where, numeric.name));
  return layout;
}

RawLayout criteo_layout(bool bars) {
  RawLayout layout{.source = "criteo", .separator = '\t', .columns = {{"label", CellType::kLabel}}};
  std::vector<std::string> numbers;
  for (int i = 1; i <= 13; ++i) {
    numbers.push_back(format("I{}", i));
    layout.columns.push_back({numbers.back(), CellType::kNumber});
  }
  for (int i = 1; i <= 26; ++i) layout.columns.push_back({format("C{}", i), CellType::kHex});
  add_numbers(layout, numbers, bars);
  for (int i = 1; i <= 26; ++i) add_field(layout, format("C{}", i), format("C{}", i), Derivation::kValue);
  return layout;
}

RawLayout avazu_layout(bool bars, std::string_view header, const std::string& file) {
  RawLayout layout{.source = "avazu", .header = true};
  const std::vector<std::string> integers = {"hour", "C1",  "banner_pos", "device_type", "device_conn_type",
                                             "C14",  "C15", "C16",        "C17",         "C18",
                                             "C19",  "C20", "C21"};
  const std::vector<std::string> ids = {"site_id",   "site_domain", "site_category",
                                        "app_id",    "app_domain",  "app_category",
                                        "device_id", "device_ip",   "device_model"};
  Types types = {{"click", CellType::kLabel}};
  for (const std::string& name : integers) types[name] = CellType::kInteger;
  for (const std::string& name : ids) types[name] = CellType::kHex;
  layout.columns = columns_under(header, layout, types, file);
  for (const RawColumn& column : layout.columns) {
    if (column.type == CellType::kSkip || column.type == CellType::kLabel) continue;
    add_field(layout, column.name, column.name,
              bars && column.name == "hour" ? Derivation::kStampHour : Derivation::kValue);
  }
  if (bars) {
    add_field(layout, "weekday", "hour", Derivation::kStampWeekday);
    add_field(layout, "is_weekend", "hour", Derivation::kStampWeekend);
  }
  return layout;
}

RawLayout movielens_layout(std::string_view header, const std::string& file) {
  RawLayout layout{.source = "movielens", .header = true, .label_at_least = 4.0};
  layout.columns = columns_under(header, layout,
                                 {{"userId", CellType::kInteger},
                                  {"movieId", CellType::kInteger},
                                  {"rating", CellType::kLabel},
                                  {"timestamp", CellType::kInteger}},
                                 file);
  add_field(layout, "user", "userId", Derivation::kValue);
  add_field(layout, "movie", "movieId", Derivation::kValue);
  add_field(layout, "genres", "movieId", Derivation::kJoined, 0);
  add_field(layout, "year", "movieId", Derivation::kJoined, 1);
  add_field(layout, "hour", "timestamp", Derivation::kUnixHour);
  add_field(layout, "weekday", "timestamp", Derivation::kUnixWeekday);
  return layout;
}

RawLayout csv_layout(const std::filesystem::path& schema, bool bars, std::string_view header,
                     const std::string& file) {
  const Config config = Config::from_file(schema);
  CsvSchema said;
  read_options(config, said);
  const auto refuse = [&](std::string_view key, const std::string& what) {
    throw ConfigError(format("{}: {}", config.where(key), what));
  };
  if (said.separator.size() != 1 || std::isalnum(static_cast<unsigned char>(said.separator[0])) != 0 ||
      std::string_view("\n\r\"+-.").find(said.separator) != std::string_view::npos)
    refuse("separator",
           "the separator must be one character that values do not have, such as \",\" or \"\\t\"");
  if (!std::isfinite(said.label_at_least)) refuse("label_at_least", "a finite number is needed");
  if (said.label.empty()) refuse("label", "name the column of the label: label = \"...\"");
  RawLayout layout{
      .source = "csv", .separator = said.separator[0], .header = said.header, .quotes = said.quotes};
  if (config.find("label_at_least") != nullptr) layout.label_at_least = said.label_at_least;
  Types types = {{said.label, CellType::kLabel}};
  const auto add = [&](const char* key, const std::vector<std::string>& names, CellType type) {
    for (const std::string& name : names)
      if (!types.emplace(name, type).second) refuse(key, format("column `{}` is named twice", name));
  };
  add("categorical", said.categorical, CellType::kText);
  add("integer", said.integer, CellType::kInteger);
  add("hex", said.hex, CellType::kHex);
  add("numeric", said.numeric, CellType::kNumber);
  if (types.size() - said.numeric.size() == 1 && !(bars && !said.numeric.empty()))
    refuse("categorical", "no columns of ids; name some in categorical, integer or hex");
  if (!said.header && said.columns.empty())
    refuse("columns", "without a header, name all columns: columns = [\"...\", ...]");
  layout.columns = said.header ? columns_under(header, layout, types, file)
                               : typed_columns<ConfigError>(said.columns, types, config.where("columns"));
  add_numbers(layout, said.numeric, bars);
  for (const RawColumn& column : layout.columns)
    if (column.type == CellType::kText || column.type == CellType::kInteger || column.type == CellType::kHex)
      add_field(layout, column.name, column.name, Derivation::kValue);
  return layout;
}

}  // namespace stoa
