#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

// How the fused operators share rows among threads. Sums over rows are made block by block and the blocks
// added in order, so that no result depends on the number of threads. Internal to ops/.
namespace stoa::ops {

constexpr std::int64_t kBlockRows = 64;

inline std::int64_t row_blocks(std::int64_t rows) {
  return (rows + kBlockRows - 1) / kBlockRows;
}

/// Calls work(first row, rows) for pieces of so many rows of `dim` numbers, in parallel where that pays: for
/// work without sums over rows.
template <class Work>
void for_some_rows(std::int64_t rows, std::int64_t dim, const Work& work) {
  const auto grain = std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, dim));
  at::parallel_for(0, rows, grain, [&](std::int64_t begin, std::int64_t end) { work(begin, end - begin); });
}

/// Calls work(block, first row, rows) for every block of rows, in parallel where that pays for rows of `dim`
/// numbers.
template <class Work>
void for_each_row_block(std::int64_t rows, std::int64_t dim, const Work& work) {
  const auto grain = std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, kBlockRows * dim));
  at::parallel_for(0, row_blocks(rows), grain, [&](std::int64_t begin, std::int64_t end) {
    for (auto block = begin; block < end; ++block) {
      const auto first = block * kBlockRows;
      work(block, first, std::min(kBlockRows, rows - first));
    }
  });
}

/// The sum of `partial` [blocks, width] over its blocks, added in their order; [width].
at::Tensor add_row_blocks(const at::Tensor& partial);

}  // namespace stoa::ops
