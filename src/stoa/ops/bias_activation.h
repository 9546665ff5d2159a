#pragma once

#include <ATen/core/Tensor.h>

#include "stoa/ops/mixture.h"

namespace stoa::ops {

/// f(x + bias) in one pass forward and one backward; x [..., dim], bias [dim] or undefined, the result as x
/// in shape and type. Differentiable in x and bias; keeps x alone for the backward pass, which also sums the
/// bias's gradient. bfloat16 is computed in float and rounded once; bias may be float beside it. float,
/// double and bfloat16 on a CPU are fused, all else is bias_activation_reference. In float the relative error
/// of GELU is below 1e-6 for x > -3, the absolute one everywhere. Autocast changes nothing: types follow the
/// inputs. Throws ShapeError for shapes that do not fit.
at::Tensor bias_activation(const at::Tensor& x, const at::Tensor& bias, Activation activation);

/// The same of plain ATen calls.
at::Tensor bias_activation_reference(const at::Tensor& x, const at::Tensor& bias, Activation activation);

/// out = f(x + bias) without autograd, for contiguous `out` and `x` [rows, dim] of one type; `out` may be x
/// itself. Throws ShapeError for shapes that do not fit.
void bias_activation_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& bias,
                         Activation activation);

/// Writes grad f'(x + bias) to `grad_x`, which may be grad itself, and returns its sum over rows, bias's
/// gradient [dim], in the type sums are made in; an undefined tensor if not `sum_rows`. All are contiguous
/// [rows, dim] of one type.
at::Tensor bias_activation_backward_out(const at::Tensor& grad_x, const at::Tensor& grad, const at::Tensor& x,
                                        const at::Tensor& bias, Activation activation, bool sum_rows);

}  // namespace stoa::ops
