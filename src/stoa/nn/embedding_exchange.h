#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "stoa/tensor/safetensors_stream.h"

namespace stoa::nn {

/// Reaches the processes that hold the other rows of embedding tables. All call the same functions in the
/// same order; tensors are on the CPU and contiguous.
class RowExchange {
 public:
  /// Rows for, or from, each process.
  using Counts = std::vector<std::int64_t>;

  virtual ~RowExchange() = default;
  virtual std::int64_t rank() const = 0;
  virtual std::int64_t size() const = 0;
  /// rows [sum of send, ...], those for process 0 first -> those that came, in the order of processes.
  virtual at::Tensor exchange(const at::Tensor& rows, const Counts& send, const Counts& receive) = 0;
  /// Replaces numbers by their sums over all processes, equal to the bit on all.
  virtual void sum(const at::Tensor& numbers) = 0;
};

/// Implemented by sparse weights whose rows can be split over processes, each of which then has about an Nth
/// of them. From split() on all processes call the same functions of SparseWeights together, also where one
/// has no rows to ask for or no gradients, and get what one process would get: gradients, counts, norms and
/// numbers for the log are those of all processes' batches as of one. state() is process 0's alone, in the
/// form of one process; the others get nothing. load() and start_from() take that form on every process and
/// keep what is theirs.
class SplitsRows {
 public:
  virtual ~SplitsRows() = default;
  /// Deals the rows out; called before the weights are drawn or loaded.
  virtual void split(std::shared_ptr<RowExchange> exchange) = 0;
  /// Whether rows are at several processes.
  virtual bool is_split() const = 0;
  /// Does this process's part in a lookup of the others, for no rows of its own: where it has fewer
  /// micro-batches than they.
  virtual void look_up_nothing() = 0;
  /// state(), of whose tables rows come together a few at a time, in process 0, which saves it while the
  /// others bring them; before the next update.
  virtual StreamedTensors streamed_state() const = 0;
  /// Brings all rows to process 0, which goes on alone; the others give theirs up and are of no more use.
  virtual void join() = 0;
};

}  // namespace stoa::nn
