#pragma once

#include <cstdint>

#include "stoa/ops/simd.h"

// The row loops of gemm.h. Single-threaded.
namespace stoa::ops {

/// to[c * to_stride + r] = from[r * from_stride + c] for `rows` x `columns` numbers.
void transpose_block(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns,
                     float* to, std::int64_t to_stride);

/// sums[c] += the sum of from[r][c] over `rows` rows, in their order, for rows [rows, columns] one behind the
/// other.
void add_columns(const float* from, float* sums, std::int64_t rows, std::int64_t columns);

/// products[r][c] = the sum of a[r][i] * b[c][i] over `size` numbers, for a [rows, size] and b [columns,
/// size] one row behind the other; rows of the products are `stride` apart. For few rows: b is read as it
/// lies, once for each four of them.
void dot_products(const float* a, std::int64_t rows, const float* b, std::int64_t columns, std::int64_t size,
                  float* products, std::int64_t stride);

/// products[c] = the sum of row[2 i] * panel[i][c][0] + row[2 i + 1] * panel[i][c][1] over `pairs`, in fp32,
/// for columns below `columns` of a panel [pairs, width, 2] whose width is a multiple of 64; or added to
/// products[c]. For a few rows: it reads the panel as fast as memory gives it.
void panel_products(const Bfloat16* row, std::int64_t pairs, const Bfloat16* panel, std::int64_t width,
                    std::int64_t columns, float* products, bool add);

/// to[c] = from[c] rounded to nearest, ties to even; NaN stays NaN.
void round_row(const float* from, std::int64_t columns, Bfloat16* to);

/// Two rows rounded likewise and interleaved: to[2 c] = first[c], to[2 c + 1] = second[c], or 0 where
/// `second` is null.
void pair_rows(const float* first, const float* second, std::int64_t columns, Bfloat16* to);

}  // namespace stoa::ops
