#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "stoa/base/config.h"
#include "stoa/base/json.h"

namespace stoa {

/// What an options struct shows its fields to. A struct lists each field once:
///
///     struct AdamWOptions {
///       double lr = 1e-3;
///       void visit(FieldVisitor& v) { v.field("lr", lr, "peak learning rate"); }
///       void validate() const;
///     };
///
/// Reading a recipe, naming unknown keys, writing the resolved recipe and docs/options.md all run through
/// that list.
class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;

  virtual void field(const char* name, bool& value, const char* help) = 0;
  virtual void field(const char* name, std::int64_t& value, const char* help) = 0;
  virtual void field(const char* name, double& value, const char* help) = 0;
  virtual void field(const char* name, std::string& value, const char* help) = 0;
  virtual void field(const char* name, std::vector<std::int64_t>& value, const char* help) = 0;
  virtual void field(const char* name, std::vector<double>& value, const char* help) = 0;
  virtual void field(const char* name, std::vector<std::string>& value, const char* help) = 0;

  /// A field with a fixed set of named values.
  template <class Enum>
  void choice(const char* name, Enum& value, const std::vector<std::pair<const char*, Enum>>& choices,
              const char* help) {
    std::vector<std::string> names;
    std::size_t index = 0;
    for (std::size_t i = 0; i < choices.size(); ++i) {
      names.emplace_back(choices[i].first);
      if (choices[i].second == value) index = i;
    }
    choose(name, index, names, help);
    value = choices[index].second;
  }

  /// A choice that sets other fields: `apply` runs right after it was read, before the fields listed after it
  /// are read. It does not run when options are written or documented.
  template <class Enum, class Apply>
  void preset(const char* name, Enum& value, const std::vector<std::pair<const char*, Enum>>& choices,
              const char* help, const Apply& apply) {
    choice(name, value, choices, help);
    if (reading()) apply();
  }

  /// A table of options of its own: `options` has visit().
  template <class Options>
  void group(const char* name, Options& options, const char* help) {
    enter(name, help);
    options.visit(*this);
    leave();
  }

  /// Opens and closes a table whose fields are listed in between. group() is the usual form.
  virtual void enter(const char* name, const char* help) = 0;
  virtual void leave() = 0;

  /// Fields that exist only under a condition, e.g. `v.when(name == kSgd, "name = \"sgd\"", [&] {
  /// v.field(...); })`. A key of a condition that does not hold is refused with the condition in the message;
  /// docs list it with it.
  virtual void when(bool applies, const char* condition, const std::function<void()>& fields) = 0;

 protected:
  virtual void choose(const char* name, std::size_t& index, const std::vector<std::string>& names,
                      const char* help) = 0;
  virtual bool reading() const { return false; }
};

using VisitFields = std::function<void(FieldVisitor&)>;

/// Sets fields from `config`'s table. Throws ConfigError with file and line for a key that no field claims
/// (naming the nearest), a value of the wrong type, or a name outside a choice.
void read_fields(const Config& config, const VisitFields& visit);

/// All fields with their present values, nested as their groups are.
Json write_fields(const VisitFields& visit);

/// One documented field.
struct FieldDoc {
  std::string key;        ///< full key, e.g. "train.batch_size"
  std::string type;       ///< "integer", "number", "text", "true/false", "list of ...", or "a | b | c"
  std::string value;      ///< the default as TOML
  std::string help;       ///< one line
  std::string condition;  ///< when the field exists, empty for always
};
std::vector<FieldDoc> document_fields(const VisitFields& visit);

template <class Options>
void read_options(const Config& config, Options& options) {
  read_fields(config, [&](FieldVisitor& v) { options.visit(v); });
}

template <class Options>
Json write_options(Options& options) {
  return write_fields([&](FieldVisitor& v) { options.visit(v); });
}

}  // namespace stoa
