#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "stoa/base/json.h"
#include "stoa/train/experiment.h"

/// What reading, running and printing an experiment share.
namespace stoa {

/// A value of one row over the seeds; absent values (a run without it) are left out of mean and spread.
struct ExperimentCell {
  std::vector<std::optional<double>> values;  ///< one a seed

  std::vector<double> present() const;
  std::optional<double> mean() const;
  /// Sample standard deviation; absent for fewer than two values.
  std::optional<double> spread() const;
};

/// Cells by row and column.
using ExperimentCells = std::vector<std::vector<ExperimentCell>>;

/// Where a recipe of an experiment file is: beside it, or below the nearest of its parent folders; empty if
/// nowhere.
std::filesystem::path find_recipe(const std::filesystem::path& file, const std::filesystem::path& recipe);

/// ROW-SEED, the row's name in lower case with `-` for all but letters, digits and dots.
std::string run_folder_name(const std::string& row, std::int64_t seed);

/// The pages of an experiment. `file` is named by the command that makes them again; nothing else depends on
/// the machine.
std::string experiment_markdown(const Experiment& experiment, const std::filesystem::path& file,
                                const ExperimentCells& cells);
std::string experiment_html(const Experiment& experiment, const std::filesystem::path& file,
                            const ExperimentCells& cells);
Json experiment_json(const Experiment& experiment, const ExperimentCells& cells);

}  // namespace stoa
