#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "stoa/base/json.h"
#include "stoa/base/options.h"
#include "stoa/data/batch.h"
#include "stoa/data/loader.h"
#include "stoa/dist/sequence/split_tokens.h"
#include "stoa/nn/description.h"
#include "stoa/nn/outputs.h"
#include "stoa/nn/sparse_weights.h"
#include "stoa/train/exhibit.h"
#include "stoa/train/metrics.h"

namespace stoa {

/// Where a run is when a loss is asked for.
struct StepContext {
  std::int64_t step = 0;   ///< number of this update, from 0
  std::int64_t steps = 0;  ///< updates of the whole run
};

/// What a task makes of one (micro-)batch.
struct LossResult {
  at::Tensor loss;  ///< the task's own loss: the mean over weight(batch); what is reported as "loss"
  std::vector<nn::NamedTensor> metrics;       ///< further scalars for the log, means over the batch; detached
  std::vector<nn::NamedTensor> side_metrics;  ///< the same, but means over side_weight(batch)
  nn::SideOutputs side;                       ///< losses the model adds, and its statistics
};

/// How an evaluation is done.
struct EvaluateOptions {
  std::int64_t batch_size = 256;
  int workers = 0;
  bool exhibits = false;  ///< also make what a report shows
  /// Called with 0 done before the first batch, then now and then; may be empty.
  std::function<void(std::int64_t done, std::int64_t total)> progress;
};

struct Evaluation {
  Metrics metrics;
  std::vector<Exhibit> exhibits;
};

/// One answer of `stoa predict`.
struct Prediction {
  Json json;         ///< what --json prints
  std::string text;  ///< what a person reads, possibly several lines
};

/// Something to be learned, joined with a model that learns it: all that the trainer, `stoa eval` and `stoa
/// predict` see. A task owns data, loss and metrics; it knows its model only through the small interface it
/// defines for it.
class Task {
 public:
  virtual ~Task() = default;

  virtual torch::nn::Module& model() = 0;
  virtual nn::ModelDescription describe() = 0;
  /// Weights beside the model's parameters that have their own update rule; null for most tasks. They are
  /// made at the first call, so that describing a model with large tables needs no memory for them.
  virtual nn::SparseWeights* sparse_weights() { return nullptr; }
  /// Bytes that they take, moments included, without making them.
  virtual std::int64_t sparse_bytes() const { return 0; }

  /// Reads the pre-trained weights that the model's options name, if they do: called where a run begins.
  virtual void load_pretrained() {}

  /// Samples of one epoch.
  virtual std::int64_t train_samples() const = 0;
  virtual std::unique_ptr<BatchSource> train_batches(const BatchPlan& plan) = 0;
  /// From now on this process trains and evaluates with a part of every sequence; the other ranks of the
  /// group have the same samples. Throws ConfigError where the task or its model has no sequences to split.
  virtual void split_sequences(const dist::SequenceSplit& split);
  /// The number of units (samples, tokens) whose mean `loss` is; accumulation weighs micro-batches by it.
  virtual double weight(const Batch& batch) const { return static_cast<double>(batch.samples); }
  /// The same for side losses and statistics, where those are means over something else (samples, say).
  virtual double side_weight(const Batch& batch) const { return weight(batch); }
  /// The loss of a batch, in the model's present mode. The batch is on the model's device.
  virtual LossResult loss(const Batch& batch, const StepContext& context) = 0;

  /// Metrics over the evaluation data, the model in evaluation mode, no gradients. Depends on the batch size
  /// only where the model looks at a whole batch in evaluation too (capacities, expert choice).
  virtual Evaluation evaluate(const EvaluateOptions& options) = 0;
  /// The metric that says which checkpoint is best, and whether more of it is better.
  virtual std::string primary_metric() const = 0;
  virtual bool higher_is_better() const { return true; }

  /// Answers for files (or whatever the task reads), one each.
  virtual std::vector<Prediction> predict(std::span<const std::string> inputs) = 0;

  /// `samples` inputs of the right shape, and the model's plain forward pass on them: for measuring speed.
  virtual Batch example(std::int64_t samples) = 0;
  virtual void infer(const Batch& batch) = 0;

  /// Writes the first `count` evaluation inputs as files that predict() reads (`stoa eval --save-examples`).
  virtual void save_examples(const std::filesystem::path& folder, std::int64_t count) = 0;

  /// Writes what the model says of the test data, whose labels are not given out, into a folder, in the form
  /// that the benchmark's server takes (`stoa eval --save-predictions`). Returns the files; none for a task
  /// without such a form.
  virtual std::vector<std::string> save_predictions(const std::filesystem::path& folder,
                                                    const EvaluateOptions& options) {
    (void)folder, (void)options;
    return {};
  }

  /// Writes the model, and what reads its inputs, in the form that other programs know (`stoa export --form
  /// hugging_face`) into an existing folder. Throws ConfigError where there is none.
  virtual void save_pretrained(const std::filesystem::path& folder);

  /// What later commands need of the data without opening it (class names, vocabularies); kept in the run
  /// folder.
  virtual Json metadata() const { return Json::object(); }
  /// The same that is files, a tokenizer say: written into a folder of the run's, which a later build() gets
  /// as BuildContext::files.
  virtual void save_files(const std::filesystem::path& folder) { (void)folder; }
};

/// What building a task may use.
struct BuildContext {
  bool open_data =
      true;       ///< false: only the model is needed (info, predict); data functions of the task then throw
  Json metadata;  ///< metadata() of the run that is loaded, or null
  std::filesystem::path files = {};  ///< where its save_files() wrote; empty for no run
};

/// The part of a recipe that a task and its model understand: the tables [task], [data] and [model].
class TaskRecipe {
 public:
  virtual ~TaskRecipe() = default;
  virtual void visit(FieldVisitor& v) = 0;
  virtual void validate() const = 0;
  /// Makes the model (drawing initial weights from the default generator) and opens the data. Throws
  /// ConfigError, DataError.
  virtual std::unique_ptr<Task> build(const BuildContext& context) = 0;
};

/// One pair of task and model that recipes can name.
struct CatalogEntry {
  std::string task;     ///< value of task.name
  std::string model;    ///< value of model.name
  std::string summary;  ///< one line
  std::function<std::unique_ptr<TaskRecipe>()> make;
};
using Catalog = std::vector<CatalogEntry>;

}  // namespace stoa
