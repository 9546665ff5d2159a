#include "stoa/train/run_folder.h"

#include <system_error>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/train/similar.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr const char* kRecipe = "recipe.toml";
constexpr const char* kInfo = "run.json";
constexpr const char* kEvaluation = "evaluation.json";
constexpr const char* kLock = ".lock";

bool is_run(const fs::path& path) {
  return fs::exists(path / kRecipe);
}

std::string value_text(const Json* value) {
  if (value == nullptr) return "not set";
  return value->is_object() ? "a table" : to_toml_value(*value);
}

/// "`train.steps` is 10 in the run, 20 in the recipe" for the first key that differs.
std::optional<std::string> first_difference(const Json& run, const Json& recipe,
                                            const std::string& prefix = "") {
  Json keys = run;
  keys.update(recipe);
  for (const auto& [name, unused] : keys.items()) {
    const Json* ours = run.contains(name) ? &run[name] : nullptr;
    const Json* theirs = recipe.contains(name) ? &recipe[name] : nullptr;
    if (ours != nullptr && theirs != nullptr && ours->is_object() && theirs->is_object()) {
      if (auto found = first_difference(*ours, *theirs, prefix + name + ".")) return found;
    } else if (ours == nullptr || theirs == nullptr || *ours != *theirs) {
      return format("`{}{}` is {} in the run, {} in the recipe", prefix, name, value_text(ours),
                    value_text(theirs));
    }
  }
  return std::nullopt;
}

/// What of a recipe a run depends on: how several processes share the work may change.
Json essence(Json recipe) {
  recipe.erase("parallel");
  return recipe;
}

[[noreturn]] void refuse_taken(const fs::path& path, Recipe& recipe) {
  const Config config = Config::from_file(path / kRecipe);
  if (const auto difference = first_difference(essence(config.values()), essence(recipe.resolved())))
    throw ConfigError(format("{} holds a run of another recipe: {}; choose another folder with --out",
                             path.string(), *difference));
  throw ConfigError(
      format("{} holds a run of this recipe already; go on with it by --resume {}, or choose another folder "
             "with --out",
             path.string(), path.string()));
}

}  // namespace

RunFolder RunFolder::create(const fs::path& path, Recipe& recipe) {
  std::error_code failed;
  fs::create_directories(path, failed);
  if (failed) throw IoError(format("cannot make the folder {}: {}", path.string(), failed.message()));
  RunFolder folder(path);
  folder.lock_ = std::make_unique<FileLock>(path / kLock);
  if (is_run(path)) refuse_taken(path, recipe);
  write_file_atomically(path / kRecipe, to_toml(recipe.resolved()));
  return folder;
}

RunFolder RunFolder::open(const fs::path& path) {
  if (!is_run(path)) {
    const std::string near = fs::exists(path) ? "" : similar_path(path, is_run);
    throw ConfigError(format("{} is not the folder of a run: it {}{}", path.string(),
                             fs::exists(path) ? format("has no {}", kRecipe) : "does not exist",
                             near.empty() ? "; name a folder that `stoa train` made" : near));
  }
  return RunFolder(path);
}

RunFolder RunFolder::resume(const fs::path& path, Recipe* recipe) {
  RunFolder folder = open(path);
  folder.lock_ = std::make_unique<FileLock>(path / kLock);
  if (recipe == nullptr) return folder;
  if (const auto difference =
          first_difference(essence(folder.recipe().values()), essence(recipe->resolved())))
    throw ConfigError(
        format("{0} is a run of another recipe: {1}; resume it without naming a recipe, or start a new run "
               "(from its "
               "weights: --set initial.weights={0})",
               path.string(), *difference));
  return folder;
}

void RunFolder::abandon() {
  std::error_code ignored;
  for (const char* file : {kInfo, kRecipe, kLock}) fs::remove(path_ / file, ignored);
  fs::remove_all(files(), ignored);
  fs::remove(path_, ignored);  // refuses where other files are in it
  lock_.reset();
}

Config RunFolder::recipe() const {
  return Config::from_file(path_ / kRecipe);
}

std::int64_t RunFolder::evaluated_step() const {
  return fs::exists(path_ / kEvaluation) ? read_json(path_ / kEvaluation).value("step", std::int64_t{-1})
                                         : -1;
}

Json RunFolder::info() const {
  return fs::exists(path_ / kInfo) ? read_json(path_ / kInfo) : Json::object();
}

void RunFolder::write_info(const Json& info) const {
  write_file_atomically(path_ / kInfo, info.dump(2) + "\n");
}

}  // namespace stoa
