#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "stoa/base/json.h"
#include "stoa/train/exhibit.h"

namespace stoa {

/// All that a run folder tells, read once: what reports and experiments show.
struct RunRecord {
  std::filesystem::path folder;
  std::string title;              ///< the recipe's, or the folder's name where it has none
  std::string recipe_text;        ///< recipe.toml
  Json recipe, info;              ///< recipe.toml and run.json
  Json evaluation;                ///< evaluation.json, an empty object where there is none yet
  std::vector<Json> train, eval;  ///< lines of metrics.jsonl by kind
  std::vector<Exhibit> exhibits;

  /// A number of the run, absent where the run has none of that name:
  /// "parameters", "macs", "activations" (of the model), "seconds" (of training), "steps"; "eval.NAME" and
  /// "speed.NAME" (of evaluation.json); "first.NAME" and "best.NAME" (of the first of all evaluations during
  /// the training, and the highest or lowest by what the primary metric asks for); "train.NAME" (a value or a
  /// statistic of the training log, the mean over all its elements and all lines); "last.NAME" (the same of
  /// the last line).
  std::optional<double> value(const std::string& name) const;
};

/// Throws ConfigError where the folder is not a run, DataError naming the file that cannot be understood.
RunRecord read_run(const std::filesystem::path& folder);

}  // namespace stoa
