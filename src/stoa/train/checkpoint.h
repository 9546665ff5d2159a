#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "stoa/base/json.h"
#include "stoa/tensor/safetensors_stream.h"
#include "stoa/train/recipe.h"

namespace stoa {

/// Everything a run needs to go on as if it had never stopped. Random streams and the place in the data are
/// functions of seed and step, so the step number stands for them.
struct Checkpoint {
  std::int64_t step = 0;                    ///< updates done
  std::map<std::string, at::Tensor> model;  ///< distinct tensors, shared ones once
  std::map<std::string, at::Tensor> optimizer;
  std::map<std::string, at::Tensor> average;  ///< empty without EMA
  std::map<std::string, at::Tensor> sparse;   ///< empty without nn::SparseWeights
  Json state = Json::object();                ///< metrics at this step, best value so far
};

/// A checkpoint to be written, whose tensors may come together, from other processes say, only when the file
/// gets to them: one at a time.
struct StreamedCheckpoint {
  std::int64_t step = 0;
  StreamedTensors model, optimizer, average, sparse;
  Json state = Json::object();

  /// Brings all tensors in the order in which they are written, and writes nothing: what the processes do
  /// that have parts of them while another saves.
  void bring() const;
};

/// The checkpoints of a run: folders step-N with model.safetensors, optimizer.safetensors,
/// [average.safetensors], [sparse.safetensors] and state.json (step, sizes and CRC-32 of the files). Each is
/// written in a hidden folder, synced, and renamed whole.
class CheckpointStore {
 public:
  explicit CheckpointStore(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// Writes a checkpoint (in place of one of the same step) and then removes those that `options` does not
  /// keep. `value` is the primary metric, if measured. Throws IoError (a full disk, say), and what bringing
  /// tensors throws; the earlier checkpoints then stay as they are.
  void save(const StreamedCheckpoint& checkpoint, const CheckpointOptions& options,
            std::optional<double> value, bool higher_is_better);
  void save(const Checkpoint& checkpoint, const CheckpointOptions& options, std::optional<double> value,
            bool higher_is_better);
  /// Steps that have a checkpoint, ascending; unfinished hidden folders do not count.
  std::vector<std::int64_t> steps() const;
  /// Step of the best checkpoint by the recorded primary metric, if any was measured.
  std::optional<std::int64_t> best(bool higher_is_better) const;
  /// Reads and verifies one (sizes and CRC-32). Throws DataError naming the damaged file and the newest
  /// earlier checkpoint that is intact, ConfigError where there is none of that step. Tensors lie in the
  /// mapped files, only to be read, so that a process may take what is its own of them. `weights_only` leaves
  /// out the optimiser's, and gives those of the model and its averages memory of their own.
  Checkpoint load(std::int64_t step, bool weights_only = false) const;
  /// Removes the checkpoints of later steps: a run that goes on from `step` makes them anew.
  void remove_after(std::int64_t step) const;
  /// Removes hidden folders a killed process left behind.
  void clean() const;

 private:
  void prune(const CheckpointOptions& options, bool higher_is_better) const;

  std::filesystem::path folder_;
};

}  // namespace stoa
