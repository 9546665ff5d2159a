#pragma once

#include <ATen/core/Tensor.h>

#include "stoa/ops/mixture.h"

namespace stoa::ops {

/// f(x + bias) in one pass forward and one backward; x [..., dim], bias [dim] or undefined, the result as x
/// in shape and type. Differentiable in x and bias; keeps x alone for the backward pass, which also sums the
/// bias's gradient. bfloat16 is computed in float and rounded once; bias may be float beside it. float,
/// double and bfloat16 on a CPU, and on a GPU in a build with STOA_CUDA, are fused, all else is
/// bias_activation_reference. In float the relative error
/// of GELU is below 1e-6 for x > -3, the absolute one everywhere. Autocast changes nothing: types follow the
/// inputs. Throws ShapeError for shapes that do not fit.
at::Tensor bias_activation(const at::Tensor& x, const at::Tensor& bias, Activation activation);

/// The same of plain ATen calls. (bias_activation_kernels.h has the bare loops, for use inside other
/// operators.)
at::Tensor bias_activation_reference(const at::Tensor& x, const at::Tensor& bias, Activation activation);

}  // namespace stoa::ops
