#include "stoa/ops/optimizer_cuda.h"

#include "stoa/ops/cuda_launch.cuh"

namespace stoa::ops::cuda {

namespace {

// Calls work(number, part) for the parts of this block
template <class T, class Work>
__device__ void for_each_part(const Part<T>* parts, std::int64_t count, const Work& work) {
  for (std::int64_t number = blockIdx.x; number < count; number += gridDim.x) work(number, parts[number]);
}

// Calls work(i, gradient) for the part's elements of this thread
template <class T, class Work>
__device__ void for_each_element(const Part<T>& part, const Work& work) {
  for (std::int64_t i = threadIdx.x; i < part.size; i += blockDim.x)
    work(i, part.g == nullptr ? T(0) : part.g[i]);
}

template <class T>
__global__ void adamw_kernel(const Part<T>* parts, std::int64_t count, const AdamWConstants shared, double lr,
                             bool decoupled) {
  for_each_part(parts, count, [&](std::int64_t, const Part<T>& part) {
    auto c = shared;
    c.gradient_scale = part.gradient_scale;
    (decoupled ? c.keep : c.coupled_decay) = decoupled ? 1 - lr * part.decay : part.decay;
    for_each_element(part, [&](std::int64_t i, T g) {
      adamw_element(part.w[i], g, part.states[0][i], part.states[1][i], c);
    });
  });
}

template <class T>
__global__ void sgd_kernel(const Part<T>* parts, std::int64_t count, const SgdConstants shared) {
  for_each_part(parts, count, [&](std::int64_t, const Part<T>& part) {
    auto c = shared;
    c.gradient_scale = part.gradient_scale;
    c.decay = part.decay;
    for_each_element(part, [&](std::int64_t i, T g) {
      sgd_element(part.w[i], g, part.states[0] == nullptr ? nullptr : part.states[0] + i, c);
    });
  });
}

// The constants of a part; gradient_scale also holds what all parts share
template <class T>
__device__ LambConstants lamb_constants(LambConstants shared, const Part<T>& part) {
  shared.gradient_scale *= part.gradient_scale;
  shared.decay = part.decay;
  return shared;
}

// Sums of all the block's threads, for all of them; all of a block call it
__device__ LambSquares block_squares(const LambSquares& sum) {
  return {block_sum(sum.w), block_sum(sum.u)};
}

template <class T>
__global__ void moments_kernel(const Part<T>* parts, std::int64_t count, const LambConstants shared,
                               LambSquares* squares) {
  for_each_part(parts, count, [&](std::int64_t number, const Part<T>& part) {
    const auto c = lamb_constants(shared, part);
    LambSquares sum;
    for_each_element(part, [&](std::int64_t i, T g) {
      const auto term = lamb_moments_element(part.w[i], g, part.states[0][i], part.states[1][i], c);
      sum.w += term.w;
      sum.u += term.u;
    });
    sum = block_squares(sum);
    if (threadIdx.x == 0) squares[number] = sum;
  });
}

// A block a slice
__global__ void rates_kernel(const Slice* slices, std::int64_t count, const LambSquares* squares, double lr,
                             double largest_ratio, double* rates) {
  for (std::int64_t number = blockIdx.x; number < count; number += gridDim.x) {
    const Slice slice = slices[number];
    LambSquares sum;
    for (auto part = slice.first_part + threadIdx.x; part < slice.end_part; part += blockDim.x) {
      sum.w += squares[part].w;
      sum.u += squares[part].u;
    }
    sum = block_squares(sum);
    const double ratio = slice.adapts && sum.w > 0 && sum.u > 0 ? std::sqrt(sum.w) / std::sqrt(sum.u) : 1;
    if (threadIdx.x == 0) rates[number] = lr * (ratio < largest_ratio ? ratio : largest_ratio);
  }
}

template <class T>
__global__ void weights_kernel(const Part<T>* parts, std::int64_t count, const LambConstants shared,
                               const double* rates) {
  for_each_part(parts, count, [&](std::int64_t, const Part<T>& part) {
    const auto c = lamb_constants(shared, part);
    const double rate = rates[part.slice];
    for_each_element(part, [&](std::int64_t i, T) {
      lamb_weights_element(part.w[i], part.states[0][i], part.states[1][i], rate, c);
    });
  });
}

}  // namespace

template <class T>
int adamw(const Part<T>* parts, std::int64_t count, const AdamWConstants& constants, double lr,
          bool decoupled, void* stream) {
  if (count == 0) return 0;
  return launch(stream, count, kThreads, &adamw_kernel<T>, parts, count, constants, lr, decoupled);
}

template <class T>
int sgd(const Part<T>* parts, std::int64_t count, const SgdConstants& constants, void* stream) {
  if (count == 0) return 0;
  return launch(stream, count, kThreads, &sgd_kernel<T>, parts, count, constants);
}

template <class T>
int lamb(const Part<T>* parts, std::int64_t count, const Slice* slices, std::int64_t slice_count,
         const LambConstants& constants, double lr, double largest_ratio, LambSquares* squares, double* rates,
         void* stream) {
  if (count == 0) return 0;
  int status = launch(stream, count, kThreads, &moments_kernel<T>, parts, count, constants, squares);
  if (status == 0)
    status = launch(stream, slice_count, kThreads, &rates_kernel, slices, slice_count, squares, lr,
                    largest_ratio, rates);
  if (status == 0)
    status = launch(stream, count, kThreads, &weights_kernel<T>, parts, count, constants, rates);
  return status;
}

#define STOA_DEFINE(T)                                                                                      \
  template int adamw(const Part<T>*, std::int64_t, const AdamWConstants&, double, bool, void*);             \
  template int sgd(const Part<T>*, std::int64_t, const SgdConstants&, void*);                               \
  template int lamb(const Part<T>*, std::int64_t, const Slice*, std::int64_t, const LambConstants&, double, \
                    double, LambSquares*, double*, void*);
STOA_DEFINE(float)
STOA_DEFINE(double)
#undef STOA_DEFINE

}  // namespace stoa::ops::cuda
