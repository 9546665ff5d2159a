#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "stoa/train/task.h"

namespace stoa {

/// One row of an experiment: a recipe with overrides, run once a seed.
struct ExperimentRow {
  std::string name;
  std::filesystem::path recipe;
  std::vector<std::string> set;  ///< "a.b=c"
};

/// A column of the table: a value of the runs, e.g. "eval.accuracy", "parameters", "macs", "seconds",
/// "train.loss", "train.router.drop_rate" (mean over the run's lines), with its heading, factor and digits.
/// RunRecord::value() has them all.
struct ExperimentColumn {
  std::string value;
  std::string heading;
  double scale = 1;
  std::int64_t digits = 2;
};

/// A table of recipes x overrides x seeds, read from TOML: title, text (Markdown before the table), reading
/// (after it), seeds, set (overrides of every row), [[row]] name, recipe, set; [[column]] value, heading,
/// scale, digits.
struct Experiment {
  std::string title, text, reading;
  std::vector<std::int64_t> seeds = {0};
  std::vector<std::string> set;
  std::vector<ExperimentRow> rows;
  std::vector<ExperimentColumn> columns;
};

/// Recipes are looked up beside the experiment file, then below its parent folders. Throws ConfigError with
/// file and line.
Experiment read_experiment(const std::filesystem::path& file);

/// Runs what is missing (each run in `out`/ROW-SEED; an interrupted one goes on from its checkpoint), then
/// writes NAME.md and NAME.html beside the experiment file (or into `pages`): one table with mean and spread
/// (sample standard deviation) over the seeds. Returns the table as JSON. A run whose recipe changed since is
/// refused by name.
Json run_experiment(const std::filesystem::path& file, const std::filesystem::path& out,
                    const std::filesystem::path& pages, const Catalog& catalog);

}  // namespace stoa
