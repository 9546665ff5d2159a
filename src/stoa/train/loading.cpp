#include "stoa/nn/parameters.h"
#include "stoa/train/initial.h"
#include "stoa/train/trainer.h"

namespace stoa {

LoadedRun load_run(const std::filesystem::path& run, const Catalog& catalog, const std::string& checkpoint,
                   bool open_data, const std::vector<std::string>& set) {
  RunFolder folder = RunFolder::open(run);
  Config config = folder.recipe();
  for (const auto& assignment : set) config.set(assignment);
  Recipe recipe = read_recipe(config, catalog);
  const Runtime runtime = configure_runtime(recipe.runtime);
  auto task = recipe.task->build({open_data, folder.info().value("metadata", Json()), folder.files()});
  const StoredWeights weights = read_run_weights(run, checkpoint);
  nn::load_module_state(task->model(), weights.tensors, weights.source);
  if (auto* sparse = task->sparse_weights()) sparse->load(weights.sparse, weights.source);
  task->model().to(runtime.device);
  task->model().eval();
  return {std::move(folder), std::move(recipe), std::move(task), runtime, weights.step};
}

}  // namespace stoa
