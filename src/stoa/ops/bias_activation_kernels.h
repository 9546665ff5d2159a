#pragma once

#include <cstdint>

#include "stoa/ops/simd.h"

// The loops of bias_activation.h on rows that lie one behind the other; the functions are those of
// ops::Activation. Single-threaded: callers give each thread rows of its own. T is float, double or Bfloat16;
// arithmetic is in Math<T>.
namespace stoa::ops {

/// out = f(x + bias), rows [rows, dim]; `out` may be x. No bias where the pointer is null.
void bias_activation_forward(const float* x, const float* bias, float* out, std::int64_t rows,
                             std::int64_t dim, std::int64_t activation);
void bias_activation_forward(const double* x, const double* bias, double* out, std::int64_t rows,
                             std::int64_t dim, std::int64_t activation);
void bias_activation_forward(const Bfloat16* x, const float* bias, Bfloat16* out, std::int64_t rows,
                             std::int64_t dim, std::int64_t activation);

/// grad_x = grad f'(x + bias), and, unless grad_bias is null, grad_bias[dim] += the sum of grad_x over the
/// rows in their order. `grad_x` may be grad.
void bias_activation_backward(const float* grad, const float* x, const float* bias, float* grad_x,
                              float* grad_bias, std::int64_t rows, std::int64_t dim, std::int64_t activation);
void bias_activation_backward(const double* grad, const double* x, const double* bias, double* grad_x,
                              double* grad_bias, std::int64_t rows, std::int64_t dim,
                              std::int64_t activation);
void bias_activation_backward(const Bfloat16* grad, const Bfloat16* x, const float* bias, Bfloat16* grad_x,
                              float* grad_bias, std::int64_t rows, std::int64_t dim, std::int64_t activation);

}  // namespace stoa::ops
