#pragma once

#include <ATen/core/Tensor.h>

namespace stoa::ops {

/// What residual_norm returns; both [..., dim].
struct ResidualNorm {
  at::Tensor sum;     ///< in the type of x
  at::Tensor normed;  ///< in the type of y
};

/// sum = x + factor * scale * (y + bias) and normed = LayerNorm(sum) = (sum - mean) / sqrt(variance + eps) *
/// gamma + beta, with the mean and the biased variance of each row. x and y [..., dim]; gamma, beta, bias and
/// scale (LayerScale) [dim]; factor (stochastic depth: 0 or 1 / keep) [samples], one for each of the equal
/// parts of x's rows. bias, scale and factor may be undefined. Differentiable in all but factor; one pass
/// over the rows forward, one backward, keeping sum, and y only where scale needs a gradient. Arithmetic is
/// in float (double for double), and bfloat16 sums are rounded before the norm; parameters may be float
/// beside bfloat16 rows, and y bfloat16 beside a float x, as in training under autocast, which itself changes
/// nothing. Those types on a CPU, and on a GPU in a build with STOA_CUDA, are fused, all else is
/// residual_norm_reference. Throws ShapeError for shapes
/// that do not fit.
ResidualNorm residual_norm(const at::Tensor& x, const at::Tensor& y, const at::Tensor& bias,
                           const at::Tensor& gamma, const at::Tensor& beta, double eps,
                           const at::Tensor& scale = {}, const at::Tensor& factor = {});

/// The same of plain ATen calls.
ResidualNorm residual_norm_reference(const at::Tensor& x, const at::Tensor& y, const at::Tensor& bias,
                                     const at::Tensor& gamma, const at::Tensor& beta, double eps,
                                     const at::Tensor& scale = {}, const at::Tensor& factor = {});

/// LayerNorm(x) alone, in the type of x, by the same kernels.
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta, double eps);

/// The same of plain ATen calls.
at::Tensor layer_norm_reference(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta,
                                double eps);

}  // namespace stoa::ops
