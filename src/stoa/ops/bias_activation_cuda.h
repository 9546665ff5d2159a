#pragma once

#include <cstdint>

#include "stoa/ops/simd.h"

// bias_activation_kernels.h on a GPU: the same arguments with pointers to device memory, all rows at once; T
// is float, double or Bfloat16. Launchers return at once, with the CUDA error of the launch or 0; `stream` is
// a cudaStream_t.
namespace stoa::ops::cuda {

template <class T>
int bias_activation_forward(const T* x, const Math<T>* bias, T* out, std::int64_t rows, std::int64_t dim,
                            std::int64_t activation, void* stream);

/// Numbers of type Math<T> that the backward pass needs as scratch where it sums grad_bias.
std::int64_t bias_activation_scratch(std::int64_t rows, std::int64_t dim);

/// grad_bias, unless null, is added to, in the same order in every run; `scratch` may be null where it is.
template <class T>
int bias_activation_backward(const T* grad, const T* x, const Math<T>* bias, T* grad_x, Math<T>* grad_bias,
                             std::int64_t rows, std::int64_t dim, std::int64_t activation, Math<T>* scratch,
                             void* stream);

}  // namespace stoa::ops::cuda
