#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "stoa/base/config.h"
#include "stoa/base/errors.h"

namespace stoa::cli {

/// The recipe a command line names, with its `--set` assignments. Throws ConfigError where there is no such
/// file, naming the nearest recipe beside it, or for a folder.
Config open_recipe(const std::filesystem::path& file, const std::vector<std::string>& set);

/// "FILE: there is no such KIND", with the nearest .toml beside it, or `otherwise` where none is near.
ConfigError missing_toml(const std::filesystem::path& file, const char* kind, const char* otherwise);

}  // namespace stoa::cli
