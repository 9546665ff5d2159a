#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "stoa/base/options.h"
#include "stoa/nn/tying.h"
#include "stoa/train/task.h"

namespace stoa {

/// The weights a training starts from, where they are not drawn: fine-tuning, sharing what was trained apart,
/// upcycling.
struct InitialOptions {
  std::string weights;  ///< a run folder or a safetensors file; empty draws all weights by the seed
  std::string checkpoint = "last";  ///< of a run: "last", "best" or a step
  std::vector<std::string>
      fresh;  ///< names (or their beginnings) of tensors that keep their drawn values: a new head, say
  nn::AdaptOptions adapt;

  void visit(FieldVisitor& v);
  void validate() const;
};

/// Trained weights and what messages call them.
struct StoredWeights {
  nn::Weights tensors;
  nn::Weights sparse;  ///< state of the SparseWeights, where the run has any
  std::string source;
  std::int64_t step = 0;
};

/// Weights of a run's checkpoint "last", "best" or a step number: the averaged ones where it keeps them.
/// Throws ConfigError for one that is not there, DataError for a damaged one.
StoredWeights read_run_weights(const std::filesystem::path& run, const std::string& checkpoint);

/// Puts the model's own pre-trained weights, then those that `options` names, into a task's drawn model and
/// its SparseWeights. Throws ConfigError, or DataError naming the first tensor that does not fit.
void load_initial(Task& task, const InitialOptions& options);

}  // namespace stoa
