#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "stoa/dist/group.h"

namespace stoa::dist {

/// Which tokens of a sequence of L each of N ranks holds, L / N of them:
enum class TokenOrder {
  kContiguous,  ///< L / N that follow one another
  kZigzag,      ///< of 2 N equal pieces the n-th and the n-th from the end: equal causal work on all ranks
  kStriped      ///< every N-th, from the n-th on: nearly equal causal work
};

/// "contiguous", "zigzag", "striped".
const char* name_of(TokenOrder order);

/// The next length that can be split: a multiple of N, of 2 N for zigzag. What is added is padding, which no
/// token may see and no mean may count.
std::int64_t padded_length(std::int64_t length, TokenOrder order, int ranks);

/// Throws ConfigError that names the numbers, and padded_length(), for a length that cannot be split.
void check_length(std::int64_t length, TokenOrder order, int ranks);

/// Places in the whole sequence of the tokens that ranks [first, first + count) hold, in the order in which
/// they hold them: [count L / N] int64 on the CPU.
at::Tensor token_positions(TokenOrder order, std::int64_t length, int ranks, int first, int count = 1);

/// Whole sequences along dimension `dim`, put into the order in which the ranks hold them, one rank's tokens
/// behind the other's; and back.
at::Tensor to_order(const at::Tensor& whole, std::int64_t dim, TokenOrder order, int ranks);
at::Tensor from_order(const at::Tensor& ordered, std::int64_t dim, TokenOrder order, int ranks);

/// One rank's tokens of whole sequences along `dim`.
at::Tensor chunk_of(const at::Tensor& whole, std::int64_t dim, TokenOrder order, int ranks, int rank);

/// The whole sequences, in their own order, of which every rank gives its chunk. Not differentiable.
at::Tensor gather_tokens(const at::Tensor& chunk, std::int64_t dim, TokenOrder order, Group& group);

}  // namespace stoa::dist
