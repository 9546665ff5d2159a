#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace stoa::ops {

/// x [*, columns] with every number divided by 1 - rate, or 0 with probability `rate`. On the CPU, which are
/// dropped depends on the call's number, on the row's key and on the column alone: not on threads, nor,
/// within BatchPartScope, on how samples are cut into micro-batches or dealt out to processes. keys [rows]
/// int64; undefined ones count the rows of x, whose first dimension is samples, in the whole batch.
/// `first_column` is where the columns begin among all, of which other processes may have some. On a GPU
/// ATen draws, from a seed of call, first key and first column. Throws ShapeError.
at::Tensor dropout(const at::Tensor& x, double rate, const at::Tensor& keys = {},
                   std::int64_t first_column = 0);

/// The same of plain ATen calls for given seeds [rows] int64 of the rows: x times dropout_mask().
at::Tensor dropout_reference(const at::Tensor& x, double rate, const at::Tensor& seeds);

/// Seeds of rows with these keys, for columns from `first_column` on; `call` is dropout_seed().
at::Tensor row_seeds(std::int64_t call, const at::Tensor& keys, std::int64_t first_column = 0);

/// Which part of a step's batch operators see.
struct BatchPart {
  std::int64_t first_sample = 0;
  /// Names the dropout calls of the step, which are the same for all its parts; without it each call takes a
  /// number from the default generator.
  std::optional<std::uint64_t> seed;
  std::int64_t calls = 0;  ///< of dropout so far
};

/// The innermost BatchPartScope's, as it is now.
BatchPart batch_part();

/// Says which part it is while it lives.
class BatchPartScope {
 public:
  explicit BatchPartScope(const BatchPart& part);
  ~BatchPartScope();
  BatchPartScope(const BatchPartScope&) = delete;
  BatchPartScope& operator=(const BatchPartScope&) = delete;

 private:
  BatchPart before_;
};

/// A number that names a call's dropout; none is drawn where the rate is 0.
std::int64_t dropout_seed(double rate);

}  // namespace stoa::ops
