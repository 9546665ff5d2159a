#pragma once

#include <cstdint>

// The loops of block_attention_cpu.cpp on tiles [rows, columns], rows one behind the other, a row a key (or a
// number of the head) and a column a query; scores are logarithms to base 2. Columns come in multiples of
// kLaneColumns. Single-threaded.
namespace stoa::ops {

constexpr std::int64_t kLaneColumns = 16;

/// Of each row of keys and each column of queries what an element's mask or dropout needs.
struct TileNumbers {
  const std::int32_t* query_limits = nullptr;
  const std::int32_t* key_limits = nullptr;
  const std::int32_t* query_documents = nullptr;  ///< null: no documents
  const std::int32_t* key_documents = nullptr;
  const std::uint32_t* query_seeds = nullptr;
  const std::int32_t* key_positions = nullptr;
};

/// Scores of keys whose limit is above the query's, or whose document is another, become minus infinity.
void hide_columns(float* scores, std::int64_t rows, std::int64_t columns, const TileNumbers& numbers);

/// Online softmax: scores become p = 2^(score - top), where `top` [columns] is raised to the largest score
/// where that is far above it; sum = sum * factor + the column's p, and factor [columns] is 2^(old top -
/// top), with which earlier sums must be multiplied. Returns whether any factor is not 1. Before the first
/// tile top is -infinity and sum 0.
bool softmax_columns(float* scores, std::int64_t rows, std::int64_t columns, float* top, float* sum,
                     float* factor);

/// The same where nothing can be far above `top`, which stays.
void exponentiate_columns(float* scores, std::int64_t rows, std::int64_t columns, const float* top,
                          float* sum);

/// Probabilities become p / keep, or 0 with probability 1 - keep.
void drop_columns(float* probabilities, std::int64_t rows, std::int64_t columns, const TileNumbers& numbers,
                  float keep);

/// Multiplies each column by its factor.
void scale_columns(float* tile, std::int64_t rows, std::int64_t columns, const float* factor);

/// Scores become p = 2^(score - log_sum), and g, scaled gradients of the probabilities, become p * (g -
/// delta).
void backward_columns(float* scores, float* g, std::int64_t rows, std::int64_t columns, const float* log_sum,
                      const float* delta);

/// The same where probabilities went through drop_columns(): scores become what that made of them, and g is
/// the gradient of that.
void backward_dropped_columns(float* scores, float* g, std::int64_t rows, std::int64_t columns,
                              const float* log_sum, const float* delta, const TileNumbers& numbers,
                              float keep);

/// to += from for rows `from_stride` and `to_stride` apart.
void add_rows(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns, float* to,
              std::int64_t to_stride);

}  // namespace stoa::ops
