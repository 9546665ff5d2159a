#include "stoa/base/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <sstream>
#include <utility>
#include <vector>

// Compiled into this one file, so that neither libstoa nor its users link toml++'s own library.
#undef TOML_SHARED_LIB
#undef TOML_HEADER_ONLY
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"

namespace stoa {

namespace {

// Told of every key of a document, with the line it stands on.
using NoteKey = std::function<void(const std::string& key, toml::source_index line)>;

std::string child(const std::string& parent, std::string_view name) {
  return parent.empty() ? std::string(name) : format("{}.{}", parent, name);
}

Json from_toml(const toml::node& node, const std::string& key, const NoteKey& note);

// toml++ sorts the keys of a table by name; their positions give back the order of the document.
Json from_table(const toml::table& table, const std::string& key, const NoteKey& note) {
  std::vector<std::pair<const toml::key*, const toml::node*>> entries;
  for (const auto& [name, node] : table) entries.emplace_back(&name, &node);
  std::ranges::stable_sort(entries, {}, [](const auto& entry) {
    const toml::source_position at = entry.first->source().begin;
    return std::pair(at.line, at.column);
  });
  Json result = Json::object();
  for (const auto& [name, node] : entries) {
    const std::string full = child(key, name->str());
    note(full, name->source().begin.line);
    result[std::string(name->str())] = from_toml(*node, full, note);
  }
  return result;
}

Json from_toml(const toml::node& node, const std::string& key, const NoteKey& note) {
  if (const auto* table = node.as_table()) return from_table(*table, key, note);
  if (const auto* array = node.as_array()) {
    Json items = Json::array();
    for (const toml::node& item : *array) items.push_back(from_toml(item, key, [](const auto&, auto) {}));
    return items;
  }
  if (const auto* value = node.as_string()) return value->get();
  if (const auto* value = node.as_integer()) return value->get();
  if (const auto* value = node.as_floating_point()) return value->get();
  if (const auto* value = node.as_boolean()) return value->get();
  std::ostringstream text;  // dates and times, which JSON writes as text
  if (const auto* value = node.as_date()) text << value->get();
  if (const auto* value = node.as_time()) text << value->get();
  if (const auto* value = node.as_date_time()) text << value->get();
  return text.str();
}

// The value of `text` read as one TOML value; null where it is none.
Json value_from_text(std::string_view text) {
  try {
    const toml::table table = toml::parse(format("value = {}", text));
    if (table.size() == 1) return from_toml(*table.get("value"), "", [](const auto&, auto) {});
  } catch (const toml::parse_error&) {
  }
  return nullptr;
}

std::vector<std::string> split_key(std::string_view key) {
  std::vector<std::string> names(1);
  for (const char c : key) {
    if (c == '.')
      names.emplace_back();
    else
      names.back() += c;
  }
  return names;
}

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::string quoted_text(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      result += {'\\', c};
    else if (c == '\n')
      result += "\\n";
    else if (c == '\t')
      result += "\\t";
    else if (c == '\r')
      result += "\\r";
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      result += format("\\u{:04x}", static_cast<unsigned>(c));
    else
      result += c;
  }
  return result + "\"";
}

std::string key_text(std::string_view name) {
  const bool bare = !name.empty() && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
  return bare ? std::string(name) : quoted_text(name);
}

// Shortest digits that read back to the same number, and always recognisable as a number with a fraction.
std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  std::string text(digits, end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

void write_table(const Json& table, const std::string& header, std::string& text) {
  for (const auto& [name, value] : table.items())
    if (!value.is_object()) text += format("{} = {}\n", key_text(name), to_toml_value(value));
  for (const auto& [name, value] : table.items()) {
    if (!value.is_object()) continue;
    const std::string full = child(header, key_text(name));
    const bool only_tables =
        !value.empty() && std::ranges::all_of(value, [](const Json& v) { return v.is_object(); });
    if (!only_tables) text += format("{}[{}]\n", text.empty() ? "" : "\n", full);
    write_table(value, full, text);
  }
}

// Lays `over` on `under`: tables are merged, other values replaced.
void lay_over(Json& under, const Json& over) {
  for (const auto& [name, value] : over.items()) {
    if (value.is_object() && under.contains(name) && under[name].is_object())
      lay_over(under[name], value);
    else
      under[name] = value;
  }
}

constexpr int kDeepestBase = 8;  // files that build on one another; more is taken for a circle

}  // namespace

Config Config::from_file(const std::filesystem::path& file) { return from_file(file, 0); }

Config Config::from_file(const std::filesystem::path& file, int depth) {
  Config config = from_text(read_file(file), file.string());
  const Json* base = config.find("base");
  if (base == nullptr) return config;
  const std::string where = config.where("base");
  if (!base->is_string()) throw ConfigError(format("{}: `base` names another file; text in quotes is needed", where));
  const auto path = file.parent_path() / base->get<std::string>();
  if (depth == kDeepestBase)
    throw ConfigError(format("{}: files build on one another more than {} deep; is there a circle?", where, kDeepestBase));
  if (!std::filesystem::exists(path)) throw ConfigError(format("{}: `base` names {}, which is not there", where, path.string()));
  Config result = from_file(path, depth + 1);
  result.name_ = config.name_;
  config.values_.erase("base");
  lay_over(result.values_, config.values_);
  for (auto& [key, place] : config.where_) result.where_[key] = place;
  return result;
}

Config Config::from_text(std::string_view text, const std::string& name) {
  Config config;
  config.name_ = name;
  try {
    config.values_ = from_table(toml::parse(text), "", [&](const std::string& key, toml::source_index line) {
      config.where_[key] = format("{}:{}", name, line);
    });
  } catch (const toml::parse_error& error) {
    const toml::source_position at = error.source().begin;
    throw ConfigError(format("{}:{}:{}: not valid TOML: {}", name, at.line, at.column, error.description()));
  }
  return config;
}

Config Config::from_json(Json values, const std::string& name) {
  if (!values.is_object())
    throw ConfigError(
        format("{}: the document is of type {}; an object is needed", name, values.type_name()));
  Config config;
  config.name_ = name;
  config.values_ = std::move(values);
  return config;
}

void Config::set(std::string_view assignment) {
  const std::string origin = format("--set {}", assignment);
  const auto equals = assignment.find('=');
  const std::string key(trimmed(assignment.substr(0, equals)));
  if (equals == std::string_view::npos || key.empty())
    throw ConfigError(format("{}: a key, `=` and a value are needed, e.g. --set train.steps=100", origin));
  Json* value = &values_;
  std::string path;
  for (const std::string& name : split_key(key)) {
    if (name.empty())
      throw ConfigError(format("{}: `{}` has an empty part; write it like train.steps", origin, key));
    if (!value->is_object())
      throw ConfigError(
          format("{}: `{}` is a value, not a table, so it has no key `{}`", origin, path, name));
    path = child(path, name);
    const bool fresh = !value->contains(name);
    value = &(*value)[name];
    if (!fresh) continue;
    *value = Json::object();
    where_[path] = origin;
  }
  std::erase_if(where_, [&](const auto& entry) { return entry.first.starts_with(path + "."); });
  where_[path] = origin;
  const std::string_view text = trimmed(assignment.substr(equals + 1));
  *value = value_from_text(text);
  if (value->is_null()) *value = text;
}

const Json* Config::find(std::string_view key) const {
  const Json* value = &values_;
  for (const std::string& name : split_key(key)) {
    if (!value->is_object()) return nullptr;
    const auto found = value->find(name);
    if (found == value->end()) return nullptr;
    value = &*found;
  }
  return value;
}

std::string Config::where(std::string_view key) const {
  if (find(key) == nullptr) return name_;
  // what has no line of its own, a key inside a table given by --set, stands where its table does
  while (true) {
    if (const auto found = where_.find(key); found != where_.end()) return found->second;
    const auto dot = key.rfind('.');
    if (dot == std::string_view::npos) return name_;
    key = key.substr(0, dot);
  }
}

std::string to_toml_value(const Json& value) {
  std::string text;
  const auto add = [&](const std::string& item) { text += (text.empty() ? "" : ", ") + item; };
  switch (value.type()) {
    case Json::value_t::boolean:
      return value.get<bool>() ? "true" : "false";
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return value.dump();
    case Json::value_t::number_float:
      return float_text(value.get<double>());
    case Json::value_t::string:
      return quoted_text(value.get_ref<const std::string&>());
    case Json::value_t::array:
      for (const Json& item : value) add(to_toml_value(item));
      return "[" + text + "]";
    case Json::value_t::object:
      for (const auto& [name, item] : value.items()) add(key_text(name) + " = " + to_toml_value(item));
      return "{" + text + "}";
    default:
      throw ConfigError(
          format("a value of type {} cannot be written as TOML; leave the key out", value.type_name()));
  }
}

std::string to_toml(const Json& values) {
  if (!values.is_object())
    throw ConfigError(format("a value of type {} cannot be written as a TOML document; an object is needed",
                             values.type_name()));
  std::string text;
  write_table(values, "", text);
  return text;
}

}  // namespace stoa
