#include "stoa/cli/recipe_file.h"

#include "stoa/base/format.h"
#include "stoa/train/similar.h"

namespace fs = std::filesystem;

namespace stoa::cli {

ConfigError missing_toml(const fs::path& file, const char* kind, const char* otherwise) {
  const std::string near =
      similar_path(file, [](const fs::path& path) { return path.extension() == ".toml"; });
  return ConfigError(
      format("{}: there is no such {}{}", file.string(), kind, near.empty() ? otherwise : near));
}

Config open_recipe(const fs::path& file, const std::vector<std::string>& set) {
  if (fs::is_directory(file))
    throw ConfigError(format(
        "{}: a recipe is a .toml file and this is a folder; to go on with a run: stoa train --resume {}",
        file.string(), file.string()));
  if (!fs::exists(file)) throw missing_toml(file, "recipe", "; the ready ones lie in recipes/");
  Config config = Config::from_file(file);
  for (const std::string& assignment : set) config.set(assignment);
  return config;
}

}  // namespace stoa::cli
