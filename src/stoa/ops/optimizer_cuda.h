#pragma once

#include <cstdint>

#include "stoa/ops/optimizer_kernels.h"

// The update rules of optimizer_kernels.h on a GPU, over one tensor in device memory; T is float or double.
// Launchers return at once, with the CUDA error of the launch or 0; `stream` is a cudaStream_t.
namespace stoa::ops::cuda {

template <class T>
int adamw(T* w, const T* g, T* m, T* v, std::int64_t size, const AdamWConstants& constants, void* stream);

/// `b` is null where momentum is 0.
template <class T>
int sgd(T* w, const T* g, T* b, std::int64_t size, const SgdConstants& constants, void* stream);

/// Elements of LambSquares that LAMB's first pass needs as scratch.
std::int64_t lamb_scratch(std::int64_t size);

/// LAMB's first pass: updates m and v, and writes one LambSquares, summed in fp64 in an order that depends on
/// `size` alone. `scratch` and `squares` are device memory too.
template <class T>
int lamb_moments(const T* w, const T* g, T* m, T* v, std::int64_t size, const LambConstants& constants,
                 LambSquares* scratch, LambSquares* squares, void* stream);

/// LAMB's second pass: w -= rate u.
template <class T>
int lamb_weights(T* w, const T* m, const T* v, std::int64_t size, double rate, const LambConstants& constants,
                 void* stream);

}  // namespace stoa::ops::cuda
