#pragma once

#include <ATen/core/Tensor.h>

#include "stoa/ops/gemm.h"
#include "stoa/ops/mixture.h"

namespace stoa::ops {

/// y = f(x W^T + b), the layer of a perceptron: x [..., in], weight [out, in], bias [out] or undefined; y
/// [..., out]. Differentiable in all three. In fp32 on the CPU, products are made block by block with bias
/// and function applied (and differentiated) while a block is in the cache; results do not depend on the
/// number of threads. With `bf16`, as under bf16 autocast, and on a CPU that multiplies bf16 natively, the
/// operands of all products are rounded to bf16 in the cache, while tensors and sums stay fp32. Other types
/// and devices take ATen's products. Throws ShapeError for shapes that do not fit.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  Activation activation = Activation::kNone, bool bf16 = false);

/// The same of plain ATen calls.
at::Tensor linear_reference(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            Activation activation = Activation::kNone);

/// Raw forms for 2-dimensional contiguous fp32 tensors on the CPU, without autograd.
struct LinearPass {
  at::Tensor before;  ///< x W^T [rows, out], without bias; undefined where the activation is kNone
  at::Tensor output;  ///< [rows, out]
};
LinearPass linear_forward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          Activation activation, Operands operands);

struct LinearGradients {
  at::Tensor x, weight, bias;  ///< undefined where not asked for
};
LinearGradients linear_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                                const at::Tensor& bias, const at::Tensor& before, Activation activation,
                                Operands operands, bool need_x, bool need_weight, bool need_bias);

}  // namespace stoa::ops
