#pragma once

#include <cstdint>

#include "stoa/ops/residual_norm_kernels.h"

// residual_norm_kernels.h on a GPU: the same structs with pointers to device memory, all rows at once, X and
// Y as there. Launchers return at once, with the CUDA error of the launch or 0; `stream` is a cudaStream_t.
namespace stoa::ops::cuda {

template <class X, class Y>
int residual_norm_forward(const NormRows<X, Y>& norm, std::int64_t rows, void* stream);

/// Numbers of type Math<X> that the backward pass needs as scratch.
std::int64_t residual_norm_scratch(std::int64_t rows, std::int64_t dim);

/// Sums over rows are added to what is there, in the same order in every run.
template <class X, class Y>
int residual_norm_backward(const NormRows<X, Y>& norm, const NormGradients<X, Y>& gradients,
                           std::int64_t rows, Math<X>* scratch, void* stream);

}  // namespace stoa::ops::cuda
