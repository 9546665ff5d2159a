#pragma once

#include <cstdint>

// The loops of attention.h on one block of scores. Single-threaded.
namespace stoa::ops {

/// What dropout adds to a row's seed from column to column, modulo 2^32, before it mixes the bits: columns
/// from n on of a row are those from 0 on of a row whose seed is n steps further.
inline constexpr std::uint32_t kColumnStep = 0x9e3779b9;

/// Rows of scores [rows, columns] become softmax(scale * row) in place; log_sum[r] is the logarithm of the
/// sum of its exponentials. A row with a NaN becomes NaN.
void softmax_rows(float* scores, float scale, float* log_sum, std::int64_t rows, std::int64_t columns);

/// sums[r] = the sum of a[r] * b[r] over rows of `columns` numbers, `stride` apart.
void dot_rows(const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride, std::int64_t rows,
              std::int64_t columns, float* sums);

/// Scores s and gradients g of the probabilities, both [rows, columns], a column a query: s becomes p =
/// exp(scale * s - log_sum), and g becomes scale * p * (g - dot), the scores' gradient; log_sum and dot are
/// [columns].
void softmax_backward_columns(float* s, float* g, const float* log_sum, const float* dot, float scale,
                              std::int64_t rows, std::int64_t columns);

/// Probabilities [rows, columns], a row a query, in place: each is divided by `keep`, or becomes 0 with
/// probability 1 - keep. Which do depends on the query's seed and the key's number alone.
void drop_rows(float* probabilities, const std::uint32_t* query_seeds, float keep, std::int64_t rows,
               std::int64_t columns);

/// softmax_backward_columns() where the probabilities went through drop_rows(): s becomes what that made of
/// them, and g, the gradient of that, becomes the scores' gradient.
void softmax_dropout_backward_columns(float* s, float* g, const float* log_sum, const float* dot,
                                      const std::uint32_t* query_seeds, float keep, float scale,
                                      std::int64_t rows, std::int64_t columns);

}  // namespace stoa::ops
