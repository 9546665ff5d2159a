// From what `stoa train` is asked for to a run: recipe, folder, checkpoint, data and model, then train().
#include <ATen/ATen.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/progress.h"
#include "stoa/base/random.h"
#include "stoa/base/text.h"
#include "stoa/train/agreement.h"
#include "stoa/train/initial.h"
#include "stoa/train/trainer.h"
#include "stoa/train/training_step.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

/// The first of runs/NAME-SEED, runs/NAME-SEED-2 ... that does not exist; NAME is the recipe file's. A
/// profile leaves these to trained runs and takes runs/NAME-SEED-profile.
fs::path free_folder(const Config& config, const Recipe& recipe, bool profile) {
  const std::string name = format("{}-{}{}", fs::path(config.name()).stem().string(), recipe.train.seed,
                                  profile ? "-profile" : "");
  fs::path path = fs::path("runs") / name;
  for (int number = 2; fs::exists(path); ++number) path = fs::path("runs") / format("{}-{}", name, number);
  return path;
}

/// The task with its model in its initial state, which the seed alone fixes.
std::unique_ptr<Task> build(const Recipe& recipe, const Json& metadata, const fs::path& files) {
  at::manual_seed(mix_seed({static_cast<std::uint64_t>(recipe.train.seed), kInitialise}));
  return recipe.task->build({/*open_data=*/true, metadata, files});
}

Json run_info(const Recipe& recipe, Task& task, const Runtime& runtime) {
  const nn::ModelDescription description = task.describe();
  Json parts = Json::array();
  for (const auto& part : description.parts)
    parts.push_back({{"name", part.name},
                     {"parameters", part.parameters},
                     {"macs", part.macs},
                     {"activations", part.activations}});
  return {{"title", recipe.title},
          {"task", recipe.task_name},
          {"model", recipe.model_name},
          {"input", description.input},
          {"parameters", description.parameters()},
          {"macs", description.macs()},
          {"activations", description.activations()},
          {"parts", parts},
          {"train_samples", task.train_samples()},
          {"steps", total_steps(recipe.train, task.train_samples())},
          {"primary_metric", task.primary_metric()},
          {"higher_is_better", task.higher_is_better()},
          {"device", runtime.device.str()},
          {"threads", runtime.threads},
          {"precision", runtime.bf16 ? "bf16" : "fp32"},
          {"metadata", task.metadata()}};
}

/// The processes of a recipe, which all must read alike. Those that do not lead only warn.
Team join(Recipe& recipe, const Runtime& runtime) {
  Team team(recipe.parallel);
  if (!team.leads()) set_verbosity(Verbosity::kQuiet);
  team.agree("the recipe", recipe.resolved().dump());
  agree_on_program(team, runtime);
  return team;
}

/// Splits what the recipe says, and tables before anything is in them.
void take_part(Task& task, const Team& team) {
  agree_on_samples(team, task);
  if (team.splits_sequences()) task.split_sequences(team.split());
  if (auto exchange = team.row_exchange())
    if (auto* const rows = dynamic_cast<nn::SplitsRows*>(task.sparse_weights()))
      rows->split(std::move(exchange));
}

/// The folder of a new run: rank 0 makes it, the others read what it holds.
RunFolder make_folder(const TrainRequest& request, Recipe& recipe, const Team& team) {
  if (!team.leads()) return RunFolder::open(team.of_leader(""));
  RunFolder folder = RunFolder::create(
      request.out.empty() ? free_folder(*request.recipe, recipe, request.profile.has_value()) : request.out,
      recipe);
  team.of_leader(fs::absolute(folder.path()).string());
  return folder;
}

/// The checkpoint of the step asked for, or the newest that rank 0 finds.
std::optional<Checkpoint> newest(const CheckpointStore& store, std::optional<std::int64_t> step,
                                 const Team& team) {
  if (!step && team.leads())
    if (const auto steps = store.steps(); !steps.empty()) step = steps.back();
  const auto agreed = team.of_leader(step ? std::to_string(*step) : "");
  return agreed.empty() ? std::nullopt : std::optional(store.load(std::stoll(agreed)));
}

TrainResult start(const TrainRequest& request, const Catalog& catalog) {
  if (!request.recipe) throw ConfigError("nothing to train: a recipe, or a run to go on with, is needed");
  Recipe recipe = read_recipe(*request.recipe, catalog);
  total_steps(recipe.train, 1);  // where no length is set, that is said before the data are opened
  const Runtime runtime = configure_runtime(recipe.runtime);
  const Team team = join(recipe, runtime);
  RunFolder folder = make_folder(request, recipe, team);
  std::unique_ptr<Task> task;
  try {
    task = build(recipe, nullptr, {});
    take_part(*task, team);
    load_initial(*task, recipe.initial);
    agree_on_batches(team, *task, recipe.train);
    if (team.leads()) {
      task->save_files(folder.files());
      folder.write_info(run_info(recipe, *task, runtime));
    }
  } catch (...) {
    if (team.leads()) folder.abandon();
    throw;
  }
  log_info(format("{}: {} parameters, {} training samples{}", folder.path().string(),
                  thousands(task->describe().parameters()), thousands(task->train_samples()), team.text()));
  try {
    return request.profile ? profile_training(recipe, *task, folder, runtime, *request.profile, team)
                           : train(recipe, *task, folder, runtime, std::nullopt, team);
  } catch (const ConfigError&) {  // what only a first step can find; a mended recipe may use the same folder
    if (team.leads() && CheckpointStore(folder.checkpoints()).steps().empty()) folder.abandon();
    throw;
  }
}

TrainResult go_on(const TrainRequest& request, const Catalog& catalog) {
  std::optional<Recipe> recipe;
  if (request.recipe) recipe = read_recipe(*request.recipe, catalog);
  if (!recipe) recipe = read_recipe(RunFolder::open(request.resume).recipe(), catalog);
  const Runtime runtime = configure_runtime(recipe->runtime);
  recipe->parallel = recipe->parallel.refitted(dist::read_place().world);
  const Team team = join(*recipe, runtime);
  RunFolder folder = team.leads() ? RunFolder::resume(request.resume, request.recipe ? &*recipe : nullptr)
                                  : RunFolder::open(request.resume);

  const Json info = folder.info();
  if (info.contains("exported"))
    throw ConfigError(
        format("{} was exported for use and cannot be trained; go on with the run it came from, {}",
               folder.path().string(), info["exported"].value("from", "")));

  const CheckpointStore store(folder.checkpoints());
  auto from = newest(store, request.resume_step, team);
  log_info(from ? format("{}: going on from step {}", folder.path().string(), thousands(from->step))
                : format("{} has no checkpoint yet: starting at step 0", folder.path().string()));

  const auto task = build(*recipe, info.value("metadata", Json()), folder.files());
  take_part(*task, team);
  if (info.empty() && team.leads()) {
    task->save_files(folder.files());
    folder.write_info(run_info(*recipe, *task, runtime));
  }
  if (!from) {
    load_initial(*task, recipe->initial);
    agree_on_batches(team, *task, recipe->train);
  }
  return train(*recipe, *task, folder, runtime, std::move(from), team);
}

}  // namespace

TrainResult run_training(const TrainRequest& request, const Catalog& catalog) {
  if (request.profile && !request.resume.empty())
    throw ConfigError(
        "a profile is made of a new run; leave out --resume, and start from trained weights with "
        "--set initial.weights=RUN");
  return request.resume.empty() ? start(request, catalog) : go_on(request, catalog);
}

}  // namespace stoa
