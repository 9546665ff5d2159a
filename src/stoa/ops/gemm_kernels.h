#pragma once

#include <cstdint>

namespace stoa::ops {

/// to[c * to_stride + r] = from[r * from_stride + c] for `rows` x `columns` numbers. Single-threaded.
void transpose_block(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns,
                     float* to, std::int64_t to_stride);

/// sums[c] += the sum of from[r][c] over `rows` rows, in their order, for rows [rows, columns] one behind the
/// other.
void add_columns(const float* from, float* sums, std::int64_t rows, std::int64_t columns);

}  // namespace stoa::ops
