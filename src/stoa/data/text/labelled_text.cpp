#include "stoa/data/text/labelled_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/data/text/documents.h"
#include "stoa/data/text/sentences.h"
#include "stoa/data/text/tsv.h"

namespace stoa {
namespace {

constexpr int kDeepest = 8;  // levels of a JSON line

/// What one line says, before it is checked: views of the line, or of `owned`.
struct RawRow {
  std::string_view first, second, label;
  std::vector<std::string> owned = {};
};

/// Places of the form's columns among those of a table.
struct Places {
  std::size_t first = 0, second = 0, label = 0, columns = 0;
};

std::optional<std::size_t> find_column(const std::vector<std::string_view>& names, std::string_view name) {
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) return std::nullopt;
  return static_cast<std::size_t>(found - names.begin());
}

Places find_places(const std::vector<std::string_view>& names, const TextTableForm& form,
                   const std::string& where) {
  const auto place = [&](const std::string& name) {
    if (const auto found = find_column(names, name)) return *found;
    throw DataError(format("{}: there is no column `{}`{}", where, name,
                           suggestion(name, std::vector<std::string>(names.begin(), names.end()))));
  };
  Places places;
  places.columns = names.size();
  places.first = place(form.first);
  if (form.pair()) places.second = place(form.second);
  if (!form.label.empty()) places.label = place(form.label);
  return places;
}

/// A member of a JSON line as the text that a table would hold.
std::string member_text(const Json& row, const std::string& name, const std::string& where) {
  const auto found = row.find(name);
  if (found == row.end()) {
    std::vector<std::string> names;
    for (const auto& item : row.items()) names.push_back(item.key());
    throw DataError(format("{}: there is no member `{}`{}", where, name, suggestion(name, names)));
  }
  if (found->is_string()) return found->get<std::string>();
  if (found->is_number() || found->is_boolean()) return found->dump();
  throw DataError(format("{}: `{}` is {}; text or a number is needed", where, name, found->type_name()));
}

RawRow row_of_json(std::string_view line, const TextTableForm& form, const std::string& where) {
  const Json object = parse_json_line(line, where);
  RawRow row;
  row.owned.push_back(member_text(object, form.first, where));
  row.owned.push_back(form.pair() ? member_text(object, form.second, where) : "");
  row.owned.push_back(form.label.empty() ? "" : member_text(object, form.label, where));
  row.first = row.owned[0];
  row.second = row.owned[1];
  row.label = row.owned[2];
  return row;
}

RawRow row_of_fields(const std::vector<std::string_view>& fields, const Places& places,
                     const TextTableForm& form, const std::string& where) {
  if (fields.size() != places.columns)
    throw DataError(format("{}: {} fields in a table of {} columns", where, fields.size(), places.columns));
  RawRow row;
  row.first = fields[places.first];
  if (form.pair()) row.second = fields[places.second];
  if (!form.label.empty()) row.label = fields[places.label];
  return row;
}

double number_of(std::string_view text, const std::string& where) {
  double value = 0;
  const auto* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end || !std::isfinite(value))
    throw DataError(format("{}: the label `{}` is not a finite number", where, text));
  return value;
}

/// Labels to numbers of classes: by the list that is given, else in the order of their first coming.
class Classes {
 public:
  explicit Classes(const std::vector<std::string>& given) : fixed_(!given.empty()), names_(given) {
    for (const auto& name : names_) numbers_.emplace(name, numbers_.size());
  }
  double number(std::string_view label, const std::string& where) {
    if (const auto found = numbers_.find(label); found != numbers_.end())
      return static_cast<double>(found->second);
    if (fixed_)
      throw DataError(format("{}: `{}` is not a label; there are: {}", where, label, join(names_, ", ")));
    if (label.empty()) throw DataError(format("{}: the label is empty", where));
    names_.emplace_back(label);
    numbers_.emplace(label, names_.size() - 1);
    return static_cast<double>(names_.size() - 1);
  }
  /// Puts classes that were found into order: by number where all are whole numbers, else by name.
  void sort(std::vector<LabelledText>& rows);
  const std::vector<std::string>& names() const { return names_; }

 private:
  bool fixed_;
  std::vector<std::string> names_;
  std::map<std::string, std::size_t, std::less<>> numbers_;
};

std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t value = 0;
  const auto* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end) return std::nullopt;
  return value;
}

void Classes::sort(std::vector<LabelledText>& rows) {
  if (fixed_ || names_.empty()) return;
  const auto found = names_;
  if (std::ranges::all_of(found, [](const auto& name) { return whole_number(name).has_value(); }))
    std::ranges::stable_sort(names_, {}, [](const auto& name) { return *whole_number(name); });
  else
    std::ranges::sort(names_);
  std::vector<double> places(found.size());
  for (std::size_t i = 0; i < found.size(); ++i)
    places[i] = static_cast<double>(std::ranges::find(names_, found[i]) - names_.begin());
  for (auto& row : rows) row.label = places[static_cast<std::size_t>(row.label)];
}

LabelledText checked(const RawRow& raw, const TextTableForm& form, Classes& classes,
                     const std::string& where) {
  LabelledText row{std::string(raw.first), std::string(raw.second), 0};
  if (form.label.empty()) return row;  // each row wants its prediction
  if (without_outer_space(raw.first).empty()) throw DataError(format("{}: `{}` is empty", where, form.first));
  if (form.pair() && without_outer_space(raw.second).empty())
    throw DataError(format("{}: `{}` is empty", where, form.second));
  const auto label = without_outer_space(raw.label);
  row.label = form.numbers ? number_of(label, where) : classes.number(label, where);
  return row;
}

/// Whether a line is a table's header that names the sentences' columns.
std::optional<Places> header_of(const std::vector<std::string_view>& fields, const TextTableForm& form) {
  const auto first = find_column(fields, form.first);
  const auto second = form.pair() ? find_column(fields, form.second) : first;
  if (!first || !second) return std::nullopt;
  return Places{*first, *second, 0, fields.size()};
}

}  // namespace

Json parse_json_line(std::string_view line, const std::string& where) {
  // the parser takes any depth, but what copies or prints a value calls itself for each level
  const auto check = [&](int depth, Json::parse_event_t, const Json&) {
    if (depth > kDeepest)
      throw DataError(format("{}: values are nested deeper than {} levels", where, kDeepest));
    return true;
  };
  Json object;
  try {
    object = Json::parse(line, check);
  } catch (const Json::parse_error& error) {
    throw DataError(format("{}, column {}: this is no JSON object", where, error.byte));
  } catch (const Json::out_of_range&) {
    throw DataError(format("{}: a number is too large for 64 bits", where));
  }
  if (!object.is_object()) throw DataError(format("{}: a JSON object is needed", where));
  return object;
}

LabelledTexts parse_labelled_texts(std::string_view text, const std::string& where,
                                   const TextTableForm& form) {
  TsvReader reader(text, where);
  std::optional<Places> places;
  if (!form.json_lines && !form.columns.empty())
    places = find_places({form.columns.begin(), form.columns.end()}, form, where);
  Classes classes(form.numbers ? std::vector<std::string>() : form.classes);
  LabelledTexts result;
  std::string_view line;
  while (reader.line(line)) {
    if (line.empty()) continue;
    if (!form.json_lines && !places) {
      places = find_places(cut_at_tabs(line), form, reader.place());
      continue;
    }
    const std::string place = reader.place();
    try {
      const RawRow raw = form.json_lines ? row_of_json(line, form, place)
                                         : row_of_fields(cut_at_tabs(line), *places, form, place);
      result.rows.push_back(checked(raw, form, classes, place));
    } catch (const DataError& error) {
      if (!form.skip_bad) throw;
      if (result.skipped++ == 0) result.skipped_for = error.what();
    }
  }
  if (result.rows.empty()) throw DataError(format("{}: there are no rows", where));
  classes.sort(result.rows);
  result.classes = classes.names();
  return result;
}

LabelledTexts read_labelled_texts(const std::filesystem::path& file, TextTableForm form) {
  form.json_lines = form.json_lines || is_json_lines(file);
  const auto bytes = read_maybe_gzip(file);
  return parse_labelled_texts({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file.string(),
                              form);
}

std::vector<LabelledText> parse_sentences(std::string_view text, const std::string& where,
                                          const TextTableForm& form) {
  TextTableForm plain = form;
  plain.label.clear();
  const std::size_t needed = form.pair() ? 2 : 1;
  std::optional<Places> header;
  std::vector<LabelledText> rows;
  TsvReader reader(text, where);
  std::string_view line;
  while (reader.line(line)) {
    const std::string place = reader.place();
    RawRow raw;
    if (line.starts_with('{')) {
      raw = row_of_json(line, plain, place);
    } else {
      const auto fields = cut_at_tabs(line);
      if (reader.number() == 1 && (header = header_of(fields, plain))) continue;
      if (!header && fields.size() != needed)
        throw DataError(format("{}: {} fields between tabs; {} or a first line that names columns is needed",
                               place, fields.size(),
                               form.pair() ? "two sentences with a tab between" : "a sentence without tabs"));
      raw = row_of_fields(fields, header ? *header : Places{0, needed - 1, 0, needed}, plain, place);
    }
    if (without_outer_space(raw.first).empty() && without_outer_space(raw.second).empty())
      throw DataError(format("{}: there is no text", place));
    rows.push_back({std::string(raw.first), std::string(raw.second), 0});
  }
  if (rows.empty()) throw DataError(format("{}: there is no text", where));
  return rows;
}

}  // namespace stoa
