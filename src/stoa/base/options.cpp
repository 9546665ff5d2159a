#include "stoa/base/options.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <type_traits>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"

namespace stoa {

namespace {

// Hands fields of every type to the template visit_field(name, value, help) of `Derived`, and keeps the table
// that is being visited and the condition it stands under.
template <class Derived>
class FieldWalker : public FieldVisitor {
 public:
  void field(const char* name, bool& value, const char* help) override { visit(name, value, help); }
  void field(const char* name, std::int64_t& value, const char* help) override { visit(name, value, help); }
  void field(const char* name, double& value, const char* help) override { visit(name, value, help); }
  void field(const char* name, std::string& value, const char* help) override { visit(name, value, help); }
  void field(const char* name, std::vector<std::int64_t>& value, const char* help) override {
    visit(name, value, help);
  }
  void field(const char* name, std::vector<double>& value, const char* help) override {
    visit(name, value, help);
  }
  void field(const char* name, std::vector<std::string>& value, const char* help) override {
    visit(name, value, help);
  }

  void enter(const char* name, const char*) override { tables_.emplace_back(name); }
  void leave() override { tables_.pop_back(); }

 protected:
  std::string key(const char* name) const { return tables_.empty() ? name : join(tables_, ".") + "." + name; }

  // Visits `fields` with `condition` added to the conditions around it.
  void under(const char* condition, const std::function<void()>& fields) {
    const std::string outer = condition_;
    condition_ = outer.empty() ? condition : outer + " and " + condition;
    fields();
    condition_ = outer;
  }

  std::vector<std::string> tables_;
  std::string condition_;

 private:
  template <class T>
  void visit(const char* name, T& value, const char* help) {
    static_cast<Derived&>(*this).visit_field(name, value, help);
  }
};

// ----------------------------------------------------------------------------------------------------------
// reading

// What is found, for messages: `text ("ten")`, `the number 3.5`.
std::string described(const Json& value) {
  switch (value.type()) {
    case Json::value_t::string: {
      const auto& text = value.get_ref<const std::string&>();
      return text.size() <= 60 ? format("text ({})", to_toml_value(value))
                               : format("text of {} bytes", text.size());
    }
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return "the integer " + value.dump();
    case Json::value_t::number_float:
      return "the number " + to_toml_value(value);
    case Json::value_t::boolean:
      return value.get<bool>() ? "true" : "false";
    case Json::value_t::array:
      return "a list";
    case Json::value_t::object:
      return "a table";
    default:
      return "empty";
  }
}

// Sets `target` if `value` is of its type.
bool assign(const Json& value, bool& target) {
  if (!value.is_boolean()) return false;
  target = value.get<bool>();
  return true;
}
bool assign(const Json& value, std::int64_t& target) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max())
    return false;
  target = value.get<std::int64_t>();
  return true;
}
bool assign(const Json& value, double& target) {
  if (!value.is_number()) return false;
  target = value.get<double>();
  return true;
}
bool assign(const Json& value, std::string& target) {
  if (!value.is_string()) return false;
  target = value.get<std::string>();
  return true;
}

// How messages and docs call a type.
template <class T>
constexpr const char* kTypeName = nullptr;
template <>
constexpr const char* kTypeName<bool> = "true/false";
template <>
constexpr const char* kTypeName<std::int64_t> = "integer";
template <>
constexpr const char* kTypeName<double> = "number";
template <>
constexpr const char* kTypeName<std::string> = "text";
template <>
constexpr const char* kTypeName<std::vector<std::int64_t>> = "list of integers";
template <>
constexpr const char* kTypeName<std::vector<double>> = "list of numbers";
template <>
constexpr const char* kTypeName<std::vector<std::string>> = "list of texts";

template <class T>
std::string needed() {
  const std::string type = kTypeName<T>;
  if (type == "true/false") return "true or false is needed";
  if (type == "text") return "text in quotes is needed";
  return format("{} {} is needed", type == "integer" ? "an" : "a", type);
}

// What to write instead, where that can be told from the value.
template <class T>
std::string advice(const Json& value) {
  constexpr double kExact = 9007199254740992.0;  // 2^53
  if constexpr (std::is_same_v<T, std::int64_t>) {
    if (value.is_number_float() && std::abs(value.get<double>()) <= kExact) {
      const auto whole = static_cast<std::int64_t>(value.get<double>());
      if (static_cast<double>(whole) == value.get<double>()) return format(": write {}", whole);
    }
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (value.is_primitive()) return format(": write \"{}\"", to_toml_value(value));
  } else if constexpr (!std::is_arithmetic_v<T>) {
    typename T::value_type item;
    if (assign(value, item)) return format(": write [{}]", to_toml_value(value));
  }
  return "";
}

class Reader : public FieldWalker<Reader> {
 public:
  explicit Reader(const Config& config) : config_(config) {}

  template <class T>
  void visit_field(const char* name, T& value, const char*) {
    const std::string full = key(name);
    if (const Json* found = take(full)) read(full, *found, value);
  }

  void enter(const char* name, const char* help) override {
    const std::string full = key(name);
    const Json* found = take(full);
    if (found != nullptr && !found->is_object())
      throw ConfigError(format("{}: `{}` is {}; a table is needed: [{}]", config_.where(full), full,
                               described(*found), full));
    FieldWalker::enter(name, help);
  }

  void when(bool applies, const char* condition, const std::function<void()>& fields) override {
    if (applies) return fields();
    under(condition, fields);  // visited all the same, so that its keys are known
  }

  // Refuses keys that no field claimed. Misspelt keys go first: one may be why a condition does not hold.
  void finish() const {
    std::optional<std::string> inapplicable;
    check_table(config_.values(), "", inapplicable);
    if (!inapplicable) return;
    throw ConfigError(format("{}: `{}` applies only when {}", config_.where(*inapplicable), *inapplicable,
                             known_.at(*inapplicable)));
  }

 protected:
  void choose(const char* name, std::size_t& index, const std::vector<std::string>& names,
              const char*) override {
    const std::string full = key(name);
    const Json* found = take(full);
    if (found == nullptr) return;
    std::string text;
    if (!assign(*found, text)) refuse<std::string>(full, described(*found), "");
    const auto match = std::ranges::find(names, text);
    if (match == names.end()) {
      const std::string near = nearest(text, names);
      const std::string hint =
          near.empty() ? "known: \"" + join(names, "\", \"") + "\"" : "did you mean \"" + near + "\"?";
      throw ConfigError(format("{}: `{}` is {}; {}", config_.where(full), full, to_toml_value(*found), hint));
    }
    index = static_cast<std::size_t>(match - names.begin());
  }

  bool reading() const override { return active(); }

 private:
  bool active() const { return condition_.empty(); }

  // Notes that the key is known, and under which condition; the value to read, or nullptr.
  const Json* take(const std::string& full) {
    const auto [entry, fresh] = known_.try_emplace(full, condition_);
    if (!fresh) entry->second = active() || entry->second.empty() ? "" : entry->second + " or " + condition_;
    return active() ? config_.find(full) : nullptr;
  }

  template <class T>
  [[noreturn]] void refuse(const std::string& full, const std::string& found, const std::string& hint) const {
    throw ConfigError(format("{}: `{}` is {}; {}{}", config_.where(full), full, found, needed<T>(), hint));
  }

  template <class T>
  void read(const std::string& full, const Json& found, T& value) const {
    if (!assign(found, value)) refuse<T>(full, described(found), advice<T>(found));
  }

  template <class T>
  void read(const std::string& full, const Json& found, std::vector<T>& value) const {
    if (!found.is_array()) refuse<std::vector<T>>(full, described(found), advice<std::vector<T>>(found));
    std::vector<T> items(found.size());
    for (std::size_t i = 0; i < items.size(); ++i)
      if (!assign(found[i], items[i]))
        refuse<std::vector<T>>(full, format("a list with {} at place {}", described(found[i]), i + 1), "");
    value = std::move(items);
  }

  void check_table(const Json& table, const std::string& prefix,
                   std::optional<std::string>& inapplicable) const {
    for (const auto& [name, value] : table.items()) {
      const std::string full = prefix + name;
      const auto entry = known_.find(full);
      if (entry == known_.end()) refuse_unknown(prefix, name, value);
      if (!entry->second.empty() && !inapplicable) inapplicable = full;
      if (value.is_object()) check_table(value, full + ".", inapplicable);
    }
  }

  [[noreturn]] void refuse_unknown(const std::string& prefix, const std::string& name,
                                   const Json& value) const {
    std::vector<std::string> siblings, elsewhere;
    for (const auto& [known, condition] : known_) {
      const std::size_t last = known.rfind('.') == std::string::npos ? 0 : known.rfind('.') + 1;
      if (known.compare(0, last, prefix) == 0)
        siblings.push_back(known.substr(last));
      else if (known.substr(last) == name)
        elsewhere.push_back(known);
    }
    std::string hint = suggestion(name, siblings);
    if (const std::string near = nearest(name, siblings); !near.empty())
      hint = format("; did you mean `{}{}`?", prefix, near);
    else if (!elsewhere.empty())
      hint = format("; did you mean `{}`?", join(elsewhere, "` or `"));
    throw ConfigError(format("{}: unknown {} `{}{}`{}", config_.where(prefix + name),
                             value.is_object() ? "table" : "key", prefix, name, hint));
  }

  const Config& config_;
  std::map<std::string, std::string>
      known_;  // key -> condition that does not hold, empty for keys that apply
};

// ---------------------------------------------------------------------------------------- writing and
// documenting

class Writer : public FieldWalker<Writer> {
 public:
  Json values = Json::object();

  template <class T>
  void visit_field(const char* name, T& value, const char*) {
    table()[name] = value;
  }
  void enter(const char* name, const char* help) override {
    FieldWalker::enter(name, help);
    table();  // a group without fields still is an empty table
  }
  void when(bool applies, const char*, const std::function<void()>& fields) override {
    if (applies) fields();
  }

 protected:
  void choose(const char* name, std::size_t& index, const std::vector<std::string>& names,
              const char*) override {
    table()[name] = names[index];
  }

 private:
  Json& table() {
    Json* table = &values;
    for (const std::string& name : tables_) {
      table = &(*table)[name];
      if (table->is_null()) *table = Json::object();
    }
    return *table;
  }
};

class Documenter : public FieldWalker<Documenter> {
 public:
  std::vector<FieldDoc> docs;

  template <class T>
  void visit_field(const char* name, T& value, const char* help) {
    add(name, kTypeName<T>, Json(value), help);
  }
  void when(bool, const char* condition, const std::function<void()>& fields) override {
    under(condition, fields);
  }

 protected:
  void choose(const char* name, std::size_t& index, const std::vector<std::string>& names,
              const char* help) override {
    add(name, join(names, " | "), Json(names[index]), help);
  }

 private:
  void add(const char* name, const std::string& type, const Json& value, const char* help) {
    const std::string full = key(name);
    const auto earlier = std::ranges::find(docs, full, &FieldDoc::key);
    if (earlier == docs.end()) return docs.push_back({full, type, to_toml_value(value), help, condition_});
    // listed under several conditions: one entry that names them all
    const bool always = earlier->condition.empty() || condition_.empty();
    earlier->condition = always ? "" : earlier->condition + " or " + condition_;
  }
};

}  // namespace

void read_fields(const Config& config, const VisitFields& visit) {
  Reader reader(config);
  visit(reader);
  reader.finish();
}

Json write_fields(const VisitFields& visit) {
  Writer writer;
  visit(writer);
  return std::move(writer.values);
}

std::vector<FieldDoc> document_fields(const VisitFields& visit) {
  Documenter documenter;
  visit(documenter);
  return std::move(documenter.docs);
}

}  // namespace stoa
