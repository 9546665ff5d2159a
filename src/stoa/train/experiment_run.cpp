#include "stoa/train/experiment_run.h"

#include <algorithm>
#include <cctype>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/progress.h"
#include "stoa/train/run_record.h"
#include "stoa/train/trainer.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

enum class RunState { kMissing, kInterrupted, kDone };

struct PlannedRun {
  std::size_t row = 0;
  std::int64_t seed = 0;
  std::string name;  // for messages: row `WideNet`, seed 0
  fs::path folder;
  Config recipe;
  RunState state = RunState::kMissing;
};

Config planned_recipe(const Experiment& experiment, const ExperimentRow& row, std::int64_t seed,
                      const fs::path& file) {
  Config recipe = Config::from_file(find_recipe(file, row.recipe));
  recipe.set("title=" + to_toml_value(row.name));
  for (const auto& assignment : experiment.set) recipe.set(assignment);
  for (const auto& assignment : row.set) recipe.set(assignment);
  recipe.set(format("train.seed={}", seed));
  return recipe;
}

// Throws where the folder holds a run of another recipe.
RunState state_of(const fs::path& folder, Recipe& recipe) {
  if (!fs::exists(folder / "recipe.toml")) return RunState::kMissing;
  const RunFolder run = RunFolder::resume(folder, &recipe);
  const bool measured_at_its_end = run.evaluated_step() == run.info().value("steps", std::int64_t{0});
  return measured_at_its_end ? RunState::kDone : RunState::kInterrupted;
}

PlannedRun plan_run(const Experiment& experiment, std::size_t row, std::int64_t seed, const fs::path& file,
                    const fs::path& out, const Catalog& catalog) {
  PlannedRun run;
  run.row = row;
  run.seed = seed;
  run.name = format("row `{}`, seed {}", experiment.rows[row].name, seed);
  run.folder = out / run_folder_name(experiment.rows[row].name, seed);
  try {
    run.recipe = planned_recipe(experiment, experiment.rows[row], seed, file);
    Recipe recipe = read_recipe(run.recipe, catalog);
    run.state = state_of(run.folder, recipe);
  } catch (const ConfigError& error) {
    throw ConfigError(format("{}, {}: {}", file.string(), run.name, error.what()));
  }
  return run;
}

// All runs are planned before the first starts, so that a mistake in the last row does not cost the others'
// time.
std::vector<PlannedRun> plan(const Experiment& experiment, const fs::path& file, const fs::path& out,
                             const Catalog& catalog) {
  std::vector<PlannedRun> runs;
  for (std::size_t row = 0; row < experiment.rows.size(); ++row)
    for (const std::int64_t seed : experiment.seeds)
      runs.push_back(plan_run(experiment, row, seed, file, out, catalog));
  return runs;
}

void do_missing(const std::vector<PlannedRun>& runs, const fs::path& file, const Catalog& catalog) {
  std::size_t number = 0;
  for (const auto& run : runs) {
    ++number;
    if (run.state == RunState::kDone) continue;
    if (interrupted())
      throw Interrupted(format("{}: stopped before run {} of {}; the same command goes on", file.string(),
                               number, runs.size()));
    log_info(format("run {} of {}: {}", number, runs.size(), run.name));
    TrainRequest request;
    request.recipe = run.recipe;
    (run.state == RunState::kMissing ? request.out : request.resume) = run.folder;
    try {
      run_training(request, catalog);
    } catch (const Interrupted&) {
      throw Interrupted(format("{}: stopped in run {} of {}, {}; the same command goes on", file.string(),
                               number, runs.size(), run.name));
    }
  }
}

ExperimentCells measured(const Experiment& experiment, const std::vector<PlannedRun>& runs) {
  ExperimentCells cells(experiment.rows.size(), std::vector<ExperimentCell>(experiment.columns.size()));
  std::vector<bool> found(experiment.columns.size(), false);
  for (const auto& run : runs) {
    const RunRecord record = read_run(run.folder);
    for (std::size_t column = 0; column < experiment.columns.size(); ++column) {
      auto value = record.value(experiment.columns[column].value);
      if (value) *value *= experiment.columns[column].scale;
      found[column] = found[column] || value;
      cells[run.row][column].values.push_back(value);
    }
  }
  for (std::size_t column = 0; column < found.size(); ++column)
    if (!found[column])
      log_warning(
          format("no run has a value `{}`; its column stays empty", experiment.columns[column].value));
  return cells;
}

}  // namespace

std::string run_folder_name(const std::string& row, std::int64_t seed) {
  std::string name;
  for (const unsigned char c : row) {
    const bool kept = std::isalnum(c) != 0 || c == '.' || c >= 0x80;
    if (kept)
      name += static_cast<char>(std::tolower(c));
    else if (!name.empty() && name.back() != '-')
      name += '-';
  }
  while (name.ends_with('-')) name.pop_back();
  return format("{}-{}", name, seed);
}

Json run_experiment(const fs::path& file, const fs::path& out, const fs::path& pages,
                    const Catalog& catalog) {
  const Experiment experiment = read_experiment(file);
  const auto runs = plan(experiment, file, out, catalog);
  do_missing(runs, file, catalog);
  const ExperimentCells cells = measured(experiment, runs);
  const fs::path folder = pages.empty() ? fs::absolute(file).parent_path() : pages;
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) throw IoError(format("cannot make the folder {}: {}", folder.string(), failed.message()));
  const fs::path stem = folder / file.stem();
  write_file_atomically(stem.string() + ".md", experiment_markdown(experiment, file, cells));
  write_file_atomically(stem.string() + ".html", experiment_html(experiment, file, cells));
  Json json = experiment_json(experiment, cells);
  json["pages"] = {stem.string() + ".md", stem.string() + ".html"};
  return json;
}

}  // namespace stoa
