#include <charconv>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/parameters.h"
#include "stoa/optim/average.h"
#include "stoa/train/trainer.h"

namespace stoa {
namespace {

/// The step that "last", "best" or a number names.
std::int64_t named_step(const CheckpointStore& store, const std::string& run, const std::string& name,
                        bool higher_is_better) {
  const auto steps = store.steps();
  if (steps.empty())
    throw ConfigError(format("{} has no checkpoint yet; go on with it: stoa train --resume {}", run, run));
  if (name == "last") return steps.back();
  if (name == "best") {
    if (const auto best = store.best(higher_is_better)) return *best;
    throw ConfigError(
        format("no checkpoint of {} was evaluated, so none is best; name \"last\" or a step", run));
  }
  std::int64_t step = 0;
  const char* const end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data(), end, step);
  if (error != std::errc() || rest != end)
    throw ConfigError(format("checkpoint \"{}\": \"last\", \"best\" or a step is needed", name));
  return step;
}

}  // namespace

LoadedRun load_run(const std::filesystem::path& run, const Catalog& catalog, const std::string& checkpoint,
                   bool open_data) {
  RunFolder folder = RunFolder::open(run);
  Recipe recipe = read_recipe(folder.recipe(), catalog);
  const Runtime runtime = configure_runtime(recipe.runtime);
  auto task = recipe.task->build({open_data, folder.info().value("metadata", Json())});
  const CheckpointStore store(folder.checkpoints());
  const std::int64_t step = named_step(store, run.string(), checkpoint, task->higher_is_better());
  const Checkpoint stored = store.load(step, /*weights_only=*/true);
  const std::string source = (folder.checkpoints() / format("step-{}", step)).string();
  nn::load_module_state(task->model(), stored.model, source + "/model.safetensors");
  if (!stored.average.empty()) {
    optim::MovingAverage average(task->model(), recipe.train.ema);
    average.load(stored.average, source + "/average.safetensors");
    average.swap();
  }
  task->model().to(runtime.device);
  task->model().eval();
  return {std::move(folder), std::move(recipe), std::move(task), runtime, step};
}

}  // namespace stoa
