#pragma once

#include <cstdint>

#include "stoa/ops/simd.h"

// The loops of residual_norm.h over contiguous rows, single-threaded. X is the type of the residual stream, Y
// that of the branch added to it and of the normed rows; both are float, double or Bfloat16. Arithmetic is in
// Math<X>.
namespace stoa::ops {

/// sum = x + factor scale (y + bias) and normed = LayerNorm(sum), as given by rows' first elements. Pointers
/// of what is absent are null; without y nothing is added, x is what is normed, and `sum` is not written.
template <class X, class Y>
struct NormRows {
  std::int64_t dim;
  const X* x;
  const Y* y;
  const Math<X>* bias;           ///< [dim]
  const Math<X>* scale;          ///< [dim]
  const Math<X>* factor;         ///< one number for every rows_per_factor rows
  std::int64_t rows_per_factor;  ///< 1 or more
  const Math<X>* gamma;          ///< [dim]
  const Math<X>* beta;           ///< [dim]
  Math<X> eps;
  X* sum;
  Y* normed;
  Math<X>* mean;  ///< one a row
  Math<X>* rstd;  ///< one a row, 1 / sqrt(variance + eps)
};

/// The gradients of NormRows' inputs from those of its outputs. Sums over rows are added to what is there.
template <class X, class Y>
struct NormGradients {
  const Y* grad_normed;
  const X* grad_sum;  ///< may be null
  X* grad_x;
  Y* grad_y;            ///< null where it is no different from grad_x, or not needed
  Math<X>* grad_gamma;  ///< [dim], not null
  Math<X>* grad_beta;   ///< [dim], not null
  Math<X>* grad_bias;   ///< [dim], may be null
  Math<X>* grad_scale;  ///< [dim], may be null
};

/// Rows `first` to `first + rows - 1`.
#define STOA_DECLARE(X, Y)                                                                       \
  void residual_norm_forward(const NormRows<X, Y>& norm, std::int64_t first, std::int64_t rows); \
  void residual_norm_backward(const NormRows<X, Y>& norm, const NormGradients<X, Y>& gradients,  \
                              std::int64_t first, std::int64_t rows);
STOA_DECLARE(float, float)
STOA_DECLARE(double, double)
STOA_DECLARE(Bfloat16, Bfloat16)
STOA_DECLARE(float, Bfloat16)
#undef STOA_DECLARE

}  // namespace stoa::ops
