#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace stoa {

/// JSON whose objects keep the order in which their keys were added.
using Json = nlohmann::ordered_json;

/// Reads and parses a JSON file. Throws IoError if it cannot be read, DataError naming file and byte if it is
/// not JSON.
Json read_json(const std::filesystem::path& file);

}  // namespace stoa
