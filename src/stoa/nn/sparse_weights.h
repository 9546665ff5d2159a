#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace stoa::nn {

/// What weights that are only read are kept in; kInt8 with a scale for each row.
enum class ServedType { kFloat, kHalf, kInt8 };

/// Weights of which a batch touches a few, with their own update rule: embedding tables too large for a pass
/// over them at every step. They are no parameters of a module; the trainer steps, saves and loads them
/// beside its optimiser.
class SparseWeights {
 public:
  virtual ~SparseWeights() = default;
  /// Forgets gradients gathered by backward passes since the last step.
  virtual void zero_grad() = 0;
  /// The square sum of the gathered gradients; not finite where any of them is not.
  virtual double squared_gradient() const = 0;
  /// One update from all gradients gathered since zero_grad(), those of several micro-batches as of one
  /// batch. Returns numbers for the log by name ("clip_frac", "ids_per_batch").
  virtual std::vector<std::pair<std::string, double>> step() = 0;
  /// Gives every row the updates it has put off, as before an export.
  virtual void flush() = 0;
  /// From now on only reading: all updates are done, what training needs is given up, and weights are kept in
  /// `type`.
  virtual void serve(ServedType type) = 0;
  /// Updates done.
  virtual std::int64_t steps() const = 0;
  /// What a resumed run needs, by name, sharing storage with these weights; updates put off stay put off.
  virtual std::map<std::string, at::Tensor> state() const = 0;
  /// Copies a stored state, which is never written to; one of weights that are only read is kept as it is,
  /// and leaves these likewise. Throws DataError naming `source` and the first tensor missing, left over or
  /// misshapen.
  virtual void load(const std::map<std::string, at::Tensor>& state, const std::string& source) = 0;
  /// Begins a new training with the weights of a stored state, which may have fewer rows than these: rows
  /// that it lacks stay as drawn, moments and the step count start anew. Throws DataError likewise.
  virtual void start_from(const std::map<std::string, at::Tensor>& state, const std::string& source) = 0;
};

}  // namespace stoa::nn
