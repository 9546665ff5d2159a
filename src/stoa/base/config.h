#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "stoa/base/json.h"

namespace stoa {

/// A parsed TOML document: nested values, and for each key where it was written, so that errors can point
/// there.
class Config {
 public:
  /// Parses a file. A top-level `base = "OTHER.toml"` (relative to the file) is read first and the file's own
  /// values are laid over it, table by table. Throws IoError, or ConfigError with line and column.
  static Config from_file(const std::filesystem::path& file);
  /// Parses text; `name` stands for the file in messages.
  static Config from_text(std::string_view text, const std::string& name);
  /// From JSON values (a resolved recipe, say); `name` stands for the file in messages.
  static Config from_json(Json values, const std::string& name);

  /// Sets one key from the command line: "a.b=c". The value is read as TOML, and as plain text where that
  /// fails
  /// (`data.path=/tmp/x`). Throws ConfigError if there is no `=` or a parent of the key is not a table.
  void set(std::string_view assignment);

  /// The whole document as nested objects.
  const Json& values() const { return values_; }
  /// Name of the document (its file).
  const std::string& name() const { return name_; }

  /// The value at a dotted key, or nullptr.
  const Json* find(std::string_view key) const;
  /// "recipe.toml:12" for the key, or "--set train.steps=5" where it came from the command line; the
  /// document's name for a key that is not there.
  std::string where(std::string_view key) const;

 private:
  static Config from_file(const std::filesystem::path& file, int depth);

  Json values_ = Json::object();
  std::map<std::string, std::string, std::less<>> where_;
  std::string name_;
};

/// Nested JSON values as TOML text: scalars first, then tables, keys in their order. Parses back to the same
/// values. Throws ConfigError for what TOML cannot hold (null).
std::string to_toml(const Json& values);

/// One value as it stands behind `=` in TOML: 1.0, "text", [1, 2], {a = 1}. Throws ConfigError like
/// to_toml().
std::string to_toml_value(const Json& value);

}  // namespace stoa
