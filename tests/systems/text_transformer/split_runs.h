#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "stoa/base/progress.h"
#include "stoa/base/random.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/checkpoint.h"
#include "stoa/train/trainer.h"
#include "stoa/train/training_step.h"
#include "support/processes.h"
#include "support/text_runs.h"

// Language models that several processes train, held to the same recipe in one.
namespace stoa::test {

/// A recipe of text_runs.h, and how it is shared out.
struct SplitCase {
  std::string name, task;
  int world;
  std::string split;        ///< what the processes' recipe says besides
  std::string common = "";  ///< and that of one process too
};

inline void PrintTo(const SplitCase& c, std::ostream* to) {
  *to << c.name;
}

/// What train_both() has each process do: STOA_PROCESS_BODY(train) { test::train_as_told(); }
inline void train_as_told() {
  train_text(std::getenv("STOA_TEST_RECIPE"), std::getenv("STOA_TEST_RUN"),
             words_of(std::getenv("STOA_TEST_SET")));
}

/// Has processes run `body` into folder/many.
inline void train_many(const SplitCase& c, const std::filesystem::path& folder,
                       const std::string& body = "train") {
  expect_processes(body, c.world,
                   {.environment = {{"STOA_TEST_RECIPE", folder / (c.task + ".toml")},
                                    {"STOA_TEST_RUN", folder / "many"},
                                    {"STOA_TEST_SET", c.split + " " + c.common}}});
}

/// Trains in one process, into folder/one, and in several.
inline void train_both(const SplitCase& c, const std::filesystem::path& folder) {
  write_text(folder);
  train_text(folder / (c.task + ".toml"), folder / "one", words_of(c.common));
  train_many(c, folder);
}

inline Config config_with(Config config, const std::vector<std::string>& set) {
  for (const auto& assignment : set) config.set(assignment);
  return config;
}

/// The task of a recipe, its model in double and as the seed draws it.
inline std::unique_ptr<Task> task_in_double(const Recipe& recipe, std::uint64_t seed) {
  at::manual_seed(seed);
  auto task = recipe.task->build({true, nullptr, {}});
  task->model().to(at::kDouble);
  task->model().train();
  return task;
}
inline std::unique_ptr<Task> task_in_double(const std::filesystem::path& recipe_file,
                                            const std::vector<std::string>& set) {
  return task_in_double(read_recipe(config_with(Config::from_file(recipe_file), set), catalog()), 5);
}

/// A run in double: what run_training() does, but for the model's type. Goes on from a step of the run, where
/// one is given.
inline void train_in_double(Recipe recipe, const std::filesystem::path& out,
                            std::optional<std::int64_t> from = std::nullopt) {
  set_verbosity(Verbosity::kQuiet);
  const Runtime runtime = configure_runtime(recipe.runtime);
  const Team team(recipe.parallel);
  if (team.leads() && !from) RunFolder::create(out, recipe);
  team.of_leader("it is there");
  RunFolder folder = RunFolder::open(out);
  const auto task =
      task_in_double(recipe, mix_seed({static_cast<std::uint64_t>(recipe.train.seed), kInitialise}));
  if (team.splits_sequences()) task->split_sequences(team.split());
  std::optional<Checkpoint> checkpoint;
  if (from) checkpoint = CheckpointStore(folder.checkpoints()).load(*from);
  train(recipe, *task, folder, runtime, std::move(checkpoint), team);
}
inline void train_in_double(const std::filesystem::path& recipe_file, const std::filesystem::path& out,
                            const std::vector<std::string>& set) {
  train_in_double(read_recipe(config_with(Config::from_file(recipe_file), set), catalog()), out);
}
/// Goes on with a run in double, as `stoa train --resume` does; `set` may change how it is shared out.
inline void resume_in_double(const std::filesystem::path& run, std::int64_t step,
                             const std::vector<std::string>& set) {
  Recipe recipe = read_recipe(config_with(RunFolder::open(run).recipe(), set), catalog());
  recipe.parallel = recipe.parallel.refitted(dist::read_place().world);
  train_in_double(std::move(recipe), run, step);
}

/// The largest distance of a tensor from its like, by the largest element of that; 0 for nothing.
inline double furthest(const std::map<std::string, at::Tensor>& found,
                       const std::map<std::string, at::Tensor>& wanted, double least) {
  EXPECT_EQ(found.size(), wanted.size());
  double most = 0;
  for (const auto& [name, tensor] : wanted) {
    const auto other = found.find(name);
    if (other == found.end() || other->second.sizes() != tensor.sizes()) {
      ADD_FAILURE() << name;
      continue;
    }
    const auto apart = (other->second.to(at::kDouble) - tensor.to(at::kDouble)).abs().max().item<double>();
    const auto share = apart / std::max(least, tensor.to(at::kDouble).abs().max().item<double>());
    most = std::max(most, std::isnan(share) ? HUGE_VAL : share);
  }
  return most;
}

}  // namespace stoa::test
