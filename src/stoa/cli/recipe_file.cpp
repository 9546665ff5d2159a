#include "stoa/cli/recipe_file.h"

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"

namespace fs = std::filesystem;

namespace stoa::cli {

namespace {

std::string missing_recipe(const fs::path& file) {
  const fs::path folder = file.has_parent_path() ? file.parent_path() : ".";
  std::vector<std::string> names;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error))
    if (entry.path().extension() == ".toml") names.push_back(entry.path().filename().string());
  const std::string near = nearest(file.filename().string(), names);
  if (near.empty())
    return format("{}: there is no such recipe; the ready ones lie in recipes/", file.string());
  const fs::path meant = file.has_parent_path() ? folder / near : fs::path(near);
  return format("{}: there is no such recipe; did you mean `{}`?", file.string(), meant.string());
}

}  // namespace

Config open_recipe(const fs::path& file, const std::vector<std::string>& set) {
  if (fs::is_directory(file))
    throw ConfigError(format(
        "{}: a recipe is a .toml file and this is a folder; to go on with a run: stoa train --resume {}",
        file.string(), file.string()));
  if (!fs::exists(file)) throw ConfigError(missing_recipe(file));
  Config config = Config::from_file(file);
  for (const std::string& assignment : set) config.set(assignment);
  return config;
}

}  // namespace stoa::cli
