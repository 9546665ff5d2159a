#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "stoa/tensor/runtime.h"
#include "stoa/train/checkpoint.h"
#include "stoa/train/profile.h"
#include "stoa/train/recipe.h"
#include "stoa/train/run_folder.h"
#include "stoa/train/task.h"
#include "stoa/train/team.h"

namespace stoa {

/// What a finished training run reports.
struct TrainResult {
  std::filesystem::path run;
  std::int64_t steps = 0;
  Metrics metrics;                      ///< of the final evaluation
  std::optional<Profile> profile = {};  ///< where that is what was asked for; there are no metrics then
};

/// Trains `task` as `recipe` says, from `from` where given, writing into `folder`: per step the learning
/// rate, forward and backward of each micro-batch (weights of the samples), finite check, clipping, update,
/// average. Every random choice of step t comes from (seed, t). The processes of `team` each make their part
/// of the batch; their gradients are added, and so all have the same weights, which rank 0 alone saves.
/// Evaluates at the end and writes evaluation.json. Throws Interrupted after a checkpoint when the user asked
/// to stop; Error naming step and last good checkpoint where the loss or gradient is not finite.
TrainResult train(Recipe& recipe, Task& task, RunFolder& folder, const Runtime& runtime,
                  std::optional<Checkpoint> from, const Team& team);

/// The first steps of train(), kProfileWarmUp and then `steps` that are recorded, without evaluation and
/// checkpoint: writes profile/ into `folder`. Throws ConfigError where `steps` is not from 1 to 100, the
/// recipe trains fewer in all or there are several processes.
TrainResult profile_training(Recipe& recipe, Task& task, RunFolder& folder, const Runtime& runtime,
                             std::int64_t steps, const Team& team);

/// What `stoa train` and `stoa experiment` ask for.
struct TrainRequest {
  std::optional<Config> recipe;  ///< absent when a run is resumed by its folder alone
  std::filesystem::path out;     ///< run folder; empty picks runs/NAME-SEED (with a number where taken)
  std::filesystem::path resume;  ///< a run to go on with
  std::optional<std::int64_t> resume_step;   ///< its checkpoint; absent takes the newest
  std::optional<std::int64_t> profile = {};  ///< records this many steps of a new run and ends
};

/// Builds everything a request names and trains.
TrainResult run_training(const TrainRequest& request, const Catalog& catalog);

/// A trained run, ready to evaluate or predict.
struct LoadedRun {
  RunFolder folder;
  Recipe recipe;
  std::unique_ptr<Task> task;
  Runtime runtime;
  std::int64_t step = 0;
};

/// Loads weights of a run (the averaged ones where it keeps them): checkpoint "last", "best" or a step
/// number. `set` has changes to its recipe, as `--set` takes them.
LoadedRun load_run(const std::filesystem::path& run, const Catalog& catalog, const std::string& checkpoint,
                   bool open_data, const std::vector<std::string>& set = {});

/// Speed of inference: samples per second at a batch size, and the median latency of one sample.
struct InferenceSpeed {
  double samples_per_second = 0;
  double latency_ms = 0;
};
InferenceSpeed measure_inference(Task& task, const Runtime& runtime, std::int64_t batch_size);

/// Milliseconds of forward passes on so many samples at once: half and 99 in 100 of `passes` took no longer.
struct Latency {
  std::int64_t samples = 0, passes = 0;
  double p50_ms = 0, p99_ms = 0;
};
std::vector<Latency> measure_latency(Task& task, const Runtime& runtime,
                                     const std::vector<std::int64_t>& sizes);

/// evaluation.json of a run folder: metrics, exhibits, inference speed.
void write_evaluation(const std::filesystem::path& run, const Evaluation& evaluation,
                      const InferenceSpeed& speed, std::int64_t step);

}  // namespace stoa
