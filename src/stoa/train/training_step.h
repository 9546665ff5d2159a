#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "stoa/base/json.h"
#include "stoa/dist/gradient_buckets.h"
#include "stoa/dist/split_layers.h"
#include "stoa/nn/embedding_exchange.h"
#include "stoa/tensor/runtime.h"
#include "stoa/train/pipeline_schedule.h"
#include "stoa/train/task.h"

namespace stoa {

/// What a random stream of the run is for; with the run's seed and the step it names the stream (mix_seed).
enum SeedPurpose : std::uint64_t { kInitialise = 1, kStep = 2, kEvaluate = 3 };

/// Numbers by name, in the order a task reports them.
using NamedNumbers = std::vector<std::pair<std::string, double>>;

/// What one batch gave: means over it, weighted by Task::weight of its micro-batches.
struct BatchOutcome {
  NamedNumbers losses;  ///< "loss" (the task's own), then the model's side losses
  NamedNumbers metrics;
  Json statistics;  ///< of the model, as nested arrays; null where they were not asked for
};

/// What a process has of a step, and with whom it makes it.
struct StepShare {
  std::int64_t first_sample = 0;             ///< of the batch at hand in that of the whole step
  std::uint64_t seed = 0;                    ///< of the step's random choices
  dist::Group* partners = nullptr;           ///< the processes with the other parts; null for none
  dist::GradientBuckets* buckets = nullptr;  ///< sums their gradients
  bool meets_in_passes = false;  ///< they meet within forward and backward passes: none may skip one
  nn::SplitsRows* tables =
      nullptr;                    ///< rows that they look up together, as often as the one with most pieces
  std::int64_t most_samples = 0;  ///< that one of them has of the batch
  dist::GradientBuckets* expert_buckets = nullptr;     ///< sums gradients of experts that others hold too
  const dist::SplitLayers* layers = nullptr;           ///< which this process has; null for all
  dist::SplitLayers::FindHolder gradient_holder = {};  ///< of sums that are dealt out; empty: the parameters
  PipelineSchedule schedule = PipelineSchedule::kOneForwardOneBackward;
};

/// Forward and backward of a batch, in micro-batches of `micro_batch_size` samples (0: the whole batch). Adds
/// to the gradients those of the batch's mean loss plus side losses: micro-batches count by their weight, so
/// that it does not matter how a batch is cut, nor whether other processes have parts of it, or of the
/// layers: all report the same. Throws DataError where the batch weighs nothing.
BatchOutcome accumulate_gradients(Task& task, const Batch& batch, const StepContext& context,
                                  std::int64_t micro_batch_size, const Runtime& runtime, bool statistics,
                                  const StepShare& share = {});

/// Running means of what steps report, for a line of the log. Saved in checkpoints, so that the line after a
/// resume covers the same steps as it would have.
class StepMeans {
 public:
  void add(const NamedNumbers& numbers);
  void clear() { sums_.clear(); }
  /// The means, by name.
  Json means() const;
  Json state() const;
  void load(const Json& state);

 private:
  struct Sum {
    std::string name;
    double sum = 0;
    std::int64_t count = 0;
  };
  std::vector<Sum> sums_;
};

}  // namespace stoa
