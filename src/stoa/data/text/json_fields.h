#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace stoa {

/// JSON whose objects sort their keys. One that keeps their order looks through all of them for each, which
/// takes seconds for a vocabulary.
using SortedJson = nlohmann::json;

/// Parses JSON. Throws DataError with `name` and the byte where it is none, and for deep nesting.
SortedJson parse_sorted_json(std::string_view text, const std::string& name);

}  // namespace stoa

namespace stoa::json_fields {

// Entries of JSON objects from outside. `place` is where the object stands, for messages. Each throws
// DataError for what is not an object or of another type; null counts as missing.

/// The entry, or nullptr where it is missing or null.
const SortedJson* find(const SortedJson& object, std::string_view key, const std::string& place);
/// The entry. Throws DataError where it is missing.
const SortedJson& need(const SortedJson& object, std::string_view key, const std::string& place);

bool truth(const SortedJson& object, std::string_view key, bool otherwise, const std::string& place);
std::int64_t whole(const SortedJson& object, std::string_view key, std::int64_t otherwise,
                   const std::string& place);
std::string text(const SortedJson& object, std::string_view key, std::string_view otherwise,
                 const std::string& place);
/// A number that is an id: 0 or more, within 31 bits.
std::int32_t id(const SortedJson& number, const std::string& place);

/// Refuses, by name, an entry that is not one of `known`.
void only(const SortedJson& object, std::initializer_list<std::string_view> known, const std::string& place);

}  // namespace stoa::json_fields
