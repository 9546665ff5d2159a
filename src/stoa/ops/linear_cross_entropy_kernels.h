#pragma once

#include <cstdint>

// The loops of linear_cross_entropy.h on one block of scores [classes, columns]: a column is a sample, so
// that sums over classes run in every lane by itself. Rows lie `stride` apart. Single-threaded.
namespace stoa::ops {

/// What is known of each column after some of its classes; each [columns].
struct ScoreSums {
  float* largest;  ///< at first minus infinity
  float* sum;      ///< of exp(score - largest)
  float* total;    ///< of the scores
};

/// Adds bias [classes], unless it is null, to a block of scores in place, and the block to the sums. A column
/// with a NaN gets the sum NaN.
void add_scores(float* scores, const float* bias, const ScoreSums& sums, std::int64_t classes,
                std::int64_t columns, std::int64_t stride);

/// Scores become scale * (exp(score - log_sum) - even), the gradients of the columns' losses but for their
/// targets' part, and 0 between `columns` and `stride`; log_sum is [columns]. Unless it is null, class_sums
/// [classes] += their sums over the columns.
void score_gradients(float* scores, const float* log_sum, float even, float scale, float* class_sums,
                     std::int64_t classes, std::int64_t columns, std::int64_t stride);

}  // namespace stoa::ops
