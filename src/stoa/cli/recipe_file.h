#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "stoa/base/config.h"

namespace stoa::cli {

/// The recipe a command line names, with its `--set` assignments. Throws ConfigError where there is no such
/// file, naming the nearest recipe beside it, or for a folder.
Config open_recipe(const std::filesystem::path& file, const std::vector<std::string>& set);

}  // namespace stoa::cli
