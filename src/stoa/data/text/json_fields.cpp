#include "stoa/data/text/json_fields.h"

#include <algorithm>
#include <limits>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa {

SortedJson parse_sorted_json(std::string_view text, const std::string& name) {
  constexpr int kDeepest = 100;
  const auto check = [&](int depth, SortedJson::parse_event_t, const SortedJson&) {
    if (depth > kDeepest)
      throw DataError(format("{}: values are nested deeper than {} levels", name, kDeepest));
    return true;
  };
  try {
    return SortedJson::parse(text, check);
  } catch (const SortedJson::parse_error& error) {
    throw DataError(
        format("{}: not valid JSON at byte {}; the file is damaged or was cut short", name, error.byte));
  } catch (const SortedJson::out_of_range&) {
    throw DataError(format("{}: a number is too large for 64 bits; the file is damaged", name));
  }
}

}  // namespace stoa

namespace stoa::json_fields {
namespace {

[[noreturn]] void refuse(const std::string& place, std::string_view key, std::string_view needed) {
  throw DataError(format("{}: `{}` is not {}", place, key, needed));
}

}  // namespace

const SortedJson* find(const SortedJson& object, std::string_view key, const std::string& place) {
  if (!object.is_object()) throw DataError(format("{}: not a JSON object", place));
  const auto found = object.find(std::string(key));
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

const SortedJson& need(const SortedJson& object, std::string_view key, const std::string& place) {
  const SortedJson* value = find(object, key, place);
  if (value == nullptr) throw DataError(format("{}: no `{}`", place, key));
  return *value;
}

bool truth(const SortedJson& object, std::string_view key, bool otherwise, const std::string& place) {
  const SortedJson* value = find(object, key, place);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) refuse(place, key, "true or false");
  return value->get<bool>();
}

std::int64_t whole(const SortedJson& object, std::string_view key, std::int64_t otherwise,
                   const std::string& place) {
  const SortedJson* value = find(object, key, place);
  if (value == nullptr) return otherwise;
  if (!value->is_number_integer()) refuse(place, key, "a whole number");
  return value->get<std::int64_t>();
}

std::string text(const SortedJson& object, std::string_view key, std::string_view otherwise,
                 const std::string& place) {
  const SortedJson* value = find(object, key, place);
  if (value == nullptr) return std::string(otherwise);
  if (!value->is_string()) refuse(place, key, "a text");
  return value->get<std::string>();
}

std::int32_t id(const SortedJson& number, const std::string& place) {
  constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();
  // beyond 63 bits the conversion gives a negative number
  const std::int64_t value = number.is_number_integer() ? number.get<std::int64_t>() : -1;
  if (value < 0 || value > kLargest)
    throw DataError(format("{}: an id is not a whole number from 0 to {}", place, kLargest));
  return static_cast<std::int32_t>(value);
}

void only(const SortedJson& object, std::initializer_list<std::string_view> known, const std::string& place) {
  if (!object.is_object()) throw DataError(format("{}: not a JSON object", place));
  for (const auto& [key, value] : object.items())
    if (std::ranges::find(known, std::string_view(key)) == known.end())
      throw DataError(
          format("{}: `{}` is not known here, and what it asks for would be ignored", place, key));
}

}  // namespace stoa::json_fields
