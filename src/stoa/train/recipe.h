#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "stoa/base/config.h"
#include "stoa/base/options.h"
#include "stoa/dist/mesh.h"
#include "stoa/optim/optimizer.h"
#include "stoa/optim/schedule.h"
#include "stoa/tensor/runtime.h"
#include "stoa/train/initial.h"
#include "stoa/train/task.h"

namespace stoa {

enum class ClipKind { kGlobal, kTensor };

/// The training loop.
struct TrainOptions {
  std::int64_t steps = 0;        ///< updates; 0 takes `epochs`
  double epochs = 0;             ///< passes over the training data; used where steps is 0
  std::int64_t batch_size = 64;  ///< samples per update
  std::int64_t micro_batch_size =
      0;                  ///< samples per forward pass; 0 is the whole batch, less accumulates gradients
  std::int64_t seed = 0;  ///< fixes weights, order, augmentation, dropout and noise
  double clip_norm = 0;   ///< gradients are scaled down to this norm; 0 does not clip
  ClipKind clip = ClipKind::kGlobal;  ///< the norm of all gradients together, or of each tensor
  double ema = 0;                     ///< decay of the averaged weights that are evaluated; 0 keeps none
  std::int64_t log_every = 10;        ///< steps between lines of metrics.jsonl
  std::int64_t eval_every = 0;        ///< steps between evaluations; 0 evaluates once at the end
  std::int64_t eval_batch_size = 256;
  std::int64_t workers = 1;  ///< threads that prepare batches

  void visit(FieldVisitor& v);
  void validate() const;
};

struct CheckpointOptions {
  std::int64_t every = 0;      ///< steps between checkpoints; 0 writes one at the end (and on Ctrl-C)
  std::int64_t keep_last = 2;  ///< older ones are removed
  bool keep_best =
      true;  ///< the one with the best primary metric stays (of those written at an evaluated step)

  void visit(FieldVisitor& v);
  void validate() const;
};

/// A whole recipe: what to learn, with which model, and how. `task.name` and `model.name` are its own fields;
/// all other keys of [task], [data] and [model] are listed by the TaskRecipe, which opens these tables again.
struct Recipe {
  std::string title;
  std::string description;
  std::string task_name, model_name;
  std::unique_ptr<TaskRecipe> task;
  InitialOptions initial;
  optim::OptimizerOptions optimizer;
  optim::ScheduleOptions schedule;
  TrainOptions train;
  CheckpointOptions checkpoint;
  RuntimeOptions runtime;
  dist::ParallelOptions parallel;

  void visit(FieldVisitor& v);
  void validate() const;
  /// Every field with its value: what recipe.toml of a run folder holds.
  Json resolved();
};

/// Reads and validates a recipe: looks its names up in the catalog first. Throws ConfigError (file, line,
/// nearest right name); a message of validate() gets the line of the first key it names in backticks.
Recipe read_recipe(const Config& config, const Catalog& catalog);

/// Updates of a run: `train.steps`, or `train.epochs` over `samples` rounded up. Throws ConfigError where
/// neither is set.
std::int64_t total_steps(const TrainOptions& options, std::int64_t samples);

}  // namespace stoa
