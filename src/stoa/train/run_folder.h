#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "stoa/base/files.h"
#include "stoa/base/json.h"
#include "stoa/train/recipe.h"

namespace stoa {

/// The folder of one run: recipe.toml (resolved), run.json (model description, metadata of the data),
/// files/ (a tokenizer, say), metrics.jsonl, events.tfevents (TensorBoard), checkpoints/step-N/,
/// evaluation.json, report.html.
class RunFolder {
 public:
  /// Starts a run. Throws ConfigError where the folder holds a run already (saying whether it is of the same
  /// recipe, and how to go on) or another process writes it.
  static RunFolder create(const std::filesystem::path& path, Recipe& recipe);
  /// Opens a run to read it. Throws ConfigError where the folder is not a run.
  static RunFolder open(const std::filesystem::path& path);
  /// Opens a run to go on with it, under its lock. `recipe`, where given, must be the run's: throws
  /// ConfigError naming the first key that differs.
  static RunFolder resume(const std::filesystem::path& path, Recipe* recipe);
  /// Takes create() back for a run that could not start (its data are missing, say): the folder is free
  /// again.
  void abandon();

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path files() const { return path_ / "files"; }  ///< what Task::save_files() wrote
  Config recipe() const;
  /// Step of the checkpoint that evaluation.json is about, -1 where there is no such file.
  std::int64_t evaluated_step() const;
  Json info() const;  ///< run.json, an empty object where there is none yet
  void write_info(const Json& info) const;

 private:
  explicit RunFolder(std::filesystem::path path) : path_(std::move(path)) {}
  std::filesystem::path path_;
  std::unique_ptr<FileLock> lock_;
};

}  // namespace stoa
