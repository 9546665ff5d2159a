#pragma once

#include <cstdint>

#include "stoa/ops/cuda_element.h"

// What the .cu files share: launching, and sums that are the same in every run, as nothing is added by
// atomics.
namespace stoa::ops::cuda {

constexpr int kWarp = 32;
constexpr int kThreads = 256;       // of a kernel without rows
constexpr int kStripThreads = 128;  // columns of a strip
constexpr int kStripRows = 32;

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

/// Starts `kernel` on min(blocks, 2^20) blocks; kernels loop over what is left. Returns the CUDA error, 0 for
/// none.
template <class... Parameters, class... Arguments>
int launch(void* stream, std::int64_t blocks, int threads, void (*kernel)(Parameters...),
           const Arguments&... arguments) {
  constexpr std::int64_t kMost = 1 << 20;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks < kMost ? blocks : kMost));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = static_cast<cudaStream_t>(stream);
  const auto status = cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
  if (status != cudaSuccess) cudaGetLastError();  // reported here, so not to the next caller as well
  return static_cast<int>(status);
}

/// Threads of a block that works on a row of `dim` numbers: about four numbers each.
inline int row_threads(std::int64_t dim) {
  const auto warps = divide_up(dim, 4 * kWarp);
  return kWarp * static_cast<int>(warps < 1 ? 1 : warps > 16 ? 16 : warps);
}

/// The sum of every thread's value, in an order fixed by the number of threads. All of a block call it.
template <class M>
__device__ M block_sum(M value) {
  __shared__ M warps[kWarp];
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffU, value, step);
  __syncthreads();  // the sums of the last call have been read
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = value;
  __syncthreads();
  M total = 0;
  for (unsigned i = 0; i < blockDim.x / kWarp; ++i) total += warps[i];
  return total;
}

/// Blocks of threads that cover all strips of rows [rows, dim].
inline std::int64_t strips(std::int64_t rows, std::int64_t dim) {
  return divide_up(rows, kStripRows) * divide_up(dim, kStripThreads);
}

/// Calls work(strip, column, first row, end row): each thread has one column of kStripRows rows.
template <class Work>
__device__ void for_each_strip(std::int64_t rows, std::int64_t dim, const Work& work) {
  const auto across = (dim + kStripThreads - 1) / kStripThreads;
  const auto all = (rows + kStripRows - 1) / kStripRows * across;
  for (std::int64_t item = blockIdx.x; item < all; item += gridDim.x) {
    const auto column = item % across * kStripThreads + threadIdx.x;
    const auto first = item / across * kStripRows;
    const auto end = first + kStripRows < rows ? first + kStripRows : rows;
    if (column < dim) work(item / across, column, first, end);
  }
}

/// to[i] += the sum of from[block * stride + i] over the blocks: 8 threads a column, whose sums are added in
/// their order. kStripThreads threads; all blocks loop alike.
template <class M>
__global__ void add_columns(const M* from, std::int64_t blocks, std::int64_t stride, std::int64_t dim,
                            M* to) {
  constexpr int kParts = 8, kColumns = kStripThreads / kParts;
  __shared__ M sums[kParts][kColumns];
  const int column = static_cast<int>(threadIdx.x) % kColumns,
            part = static_cast<int>(threadIdx.x) / kColumns;
  for (std::int64_t start = std::int64_t{blockIdx.x} * kColumns; start < dim;
       start += std::int64_t{gridDim.x} * kColumns) {
    const auto i = start + column;
    M sum = 0;
    if (i < dim)
      for (std::int64_t block = part; block < blocks; block += kParts) sum += from[block * stride + i];
    sums[part][column] = sum;
    __syncthreads();
    if (part == 0 && i < dim) {
      for (int k = 1; k < kParts; ++k) sum += sums[k][column];
      to[i] += sum;
    }
    __syncthreads();
  }
}

/// Adds the strips' sums `from` [strips of rows, stride] to `to` [dim].
template <class M>
int add_strips(const M* from, std::int64_t rows, std::int64_t stride, std::int64_t dim, M* to, void* stream) {
  return launch(stream, divide_up(dim, kStripThreads / 8), kStripThreads, &add_columns<M>, from,
                divide_up(rows, kStripRows), stride, dim, to);
}

}  // namespace stoa::ops::cuda
