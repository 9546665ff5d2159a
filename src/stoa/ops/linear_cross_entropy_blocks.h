#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "stoa/ops/gemm.h"

// linear_cross_entropy.h by cache blocks, and what it shares with the form of ATen calls. Internal to ops/.
namespace stoa::ops {

/// One call whose tensors are contiguous and whose targets are checked.
struct CrossEntropyCall {
  at::Tensor x, weight, bias;        ///< bias may be undefined
  std::vector<std::int64_t> row;     ///< the rows that count, in order
  std::vector<std::int64_t> target;  ///< and their classes
  double smoothing = 0;
  bool need_x = false, need_weight = false, need_bias = false;

  std::int64_t counted() const { return std::ssize(row); }
  bool need_any() const { return need_x || need_weight || need_bias; }
};

/// Results, and the gradients of the loss that were asked for. They cost 6 rows classes dim operations here
/// as in the plain way; a backward pass that makes the scores anew would take a third more, and save only the
/// room of `weight`, which its gradient needs in any case soon after.
struct CrossEntropyPass {
  at::Tensor loss, row_loss, correct;
  at::Tensor x, weight, bias;  ///< undefined where not asked for

  /// As if no row counted, in the type of sums.
  static CrossEntropyPass zeros(const CrossEntropyCall& call);
};

/// Rows whose scores are in memory at once: a multiple of 64, and 64 MB of floats where 64 rows are no more.
inline std::int64_t rows_of_chunk(std::int64_t classes) {
  constexpr std::int64_t kScores = 16 << 20;
  return std::clamp<std::int64_t>(kScores / classes / 64 * 64, 64, 1024);
}

/// The whole call by cache blocks: fp32 on the CPU, with a weight that is not empty.
CrossEntropyPass cross_entropy_blocks(const CrossEntropyCall& call, Operands operands);

}  // namespace stoa::ops
