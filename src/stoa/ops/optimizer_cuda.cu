#include "stoa/ops/optimizer_cuda.h"

#include "stoa/ops/cuda_launch.cuh"

namespace stoa::ops::cuda {

namespace {

constexpr std::int64_t kMostSums = 1024;  // blocks of LAMB's first pass

// Calls work(i) for every element, the grid's threads side by side
template <class Work>
__device__ void for_each_element(std::int64_t size, const Work& work) {
  const auto step = std::int64_t{gridDim.x} * blockDim.x;
  for (auto i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size; i += step) work(i);
}

template <class T>
__global__ void adamw_kernel(T* w, const T* g, T* m, T* v, std::int64_t size, const AdamWConstants c) {
  for_each_element(size, [&](std::int64_t i) { adamw_element(w, g, m, v, i, c); });
}

template <class T>
__global__ void sgd_kernel(T* w, const T* g, T* b, std::int64_t size, const SgdConstants c) {
  for_each_element(size, [&](std::int64_t i) { sgd_element(w, g, b, i, c); });
}

// The block's sums; all of a block call it
__device__ void write_squares(LambSquares sum, LambSquares* to) {
  sum.w = block_sum(sum.w);
  sum.u = block_sum(sum.u);
  if (threadIdx.x == 0) *to = sum;
}

// One LambSquares a block
template <class T>
__global__ void moments_kernel(const T* w, const T* g, T* m, T* v, std::int64_t size, const LambConstants c,
                               LambSquares* partial) {
  LambSquares sum;
  for_each_element(size, [&](std::int64_t i) {
    const auto term = lamb_moments_element(w, g, m, v, i, c);
    sum.w += term.w;
    sum.u += term.u;
  });
  write_squares(sum, partial + blockIdx.x);
}

// One block adds what the others found
__global__ void add_squares_kernel(const LambSquares* partial, std::int64_t count, LambSquares* squares) {
  LambSquares sum;
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    sum.w += partial[i].w;
    sum.u += partial[i].u;
  }
  write_squares(sum, squares);
}

template <class T>
__global__ void weights_kernel(T* w, const T* m, const T* v, std::int64_t size, double rate,
                               const LambConstants c) {
  for_each_element(size, [&](std::int64_t i) { lamb_weights_element(w, m, v, i, rate, c); });
}

}  // namespace

template <class T>
int adamw(T* w, const T* g, T* m, T* v, std::int64_t size, const AdamWConstants& constants, void* stream) {
  if (size == 0) return 0;
  return launch(stream, divide_up(size, kThreads), kThreads, &adamw_kernel<T>, w, g, m, v, size, constants);
}

template <class T>
int sgd(T* w, const T* g, T* b, std::int64_t size, const SgdConstants& constants, void* stream) {
  if (size == 0) return 0;
  return launch(stream, divide_up(size, kThreads), kThreads, &sgd_kernel<T>, w, g, b, size, constants);
}

std::int64_t lamb_scratch(std::int64_t size) {
  const auto blocks = divide_up(size, kThreads);
  return blocks < kMostSums ? blocks : kMostSums;
}

template <class T>
int lamb_moments(const T* w, const T* g, T* m, T* v, std::int64_t size, const LambConstants& constants,
                 LambSquares* scratch, LambSquares* squares, void* stream) {
  const auto blocks = lamb_scratch(size);
  if (blocks > 0) {
    const int status =
        launch(stream, blocks, kThreads, &moments_kernel<T>, w, g, m, v, size, constants, scratch);
    if (status != 0) return status;
  }
  return launch(stream, 1, kThreads, &add_squares_kernel, scratch, blocks, squares);
}

template <class T>
int lamb_weights(T* w, const T* m, const T* v, std::int64_t size, double rate, const LambConstants& constants,
                 void* stream) {
  if (size == 0) return 0;
  return launch(stream, divide_up(size, kThreads), kThreads, &weights_kernel<T>, w, m, v, size, rate,
                constants);
}

#define STOA_DEFINE(T)                                                                                    \
  template int adamw(T*, const T*, T*, T*, std::int64_t, const AdamWConstants&, void*);                   \
  template int sgd(T*, const T*, T*, std::int64_t, const SgdConstants&, void*);                           \
  template int lamb_moments(const T*, const T*, T*, T*, std::int64_t, const LambConstants&, LambSquares*, \
                            LambSquares*, void*);                                                         \
  template int lamb_weights(T*, const T*, const T*, std::int64_t, double, const LambConstants&, void*);
STOA_DEFINE(float)
STOA_DEFINE(double)
#undef STOA_DEFINE

}  // namespace stoa::ops::cuda
