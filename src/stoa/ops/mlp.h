#pragma once

#include <ATen/core/Tensor.h>

#include "stoa/ops/mixture.h"

namespace stoa::ops {

/// The two layers of a perceptron.
struct MlpWeights {
  at::Tensor w_in, b_in;    ///< [hidden, dim], [hidden]
  at::Tensor w_out, b_out;  ///< [dim_out, hidden], [dim_out]
};

/// f(x w_in^T + b_in) w_out^T + b_out for x [..., dim], as two calls of linear() would give it.
/// Differentiable. In fp32 on the CPU the backward pass makes f(...) anew from what f was given, so that one
/// array of [rows, hidden] is kept between the passes and not two. Other types and devices are two calls of
/// linear(). Throws ShapeError for shapes that do not fit.
at::Tensor mlp(const at::Tensor& x, const MlpWeights& weights, Activation activation);

/// The same of plain ATen calls.
at::Tensor mlp_reference(const at::Tensor& x, const MlpWeights& weights, Activation activation);

}  // namespace stoa::ops
