#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace stoa::ops {

/// What linear_cross_entropy returns. Only the loss has a gradient.
struct LinearCrossEntropy {
  at::Tensor loss;      ///< [], the mean over the rows that count, 0 if none does
  at::Tensor row_loss;  ///< [rows], 0 for rows that do not count
  at::Tensor correct;   ///< [rows] bool: no class scores above the target; false for rows that do not count
};

/// The loss of a linear classifier of very many classes, without its scores [rows, classes] in memory: with
/// z = x W^T + b, row_loss = log sum_c exp(z_c) - (1 - s) z_target - s / classes * sum_c z_c, where s is
/// `label_smoothing`. x [rows, dim], weight [classes, dim], bias [classes] or undefined, target [rows] int64.
/// Rows whose target is `ignore_index` do not count: they cost no product, and what they hold reaches
/// nothing. Differentiable in x, weight and bias, once; x and weight may come from one tensor. Scores exist
/// for some rows at a time (64 MB of them, whatever the number of rows), and gradients are made while they
/// do, so that the backward pass only scales them. In fp32 on the CPU products are made block by block, with
/// softmax and its derivative applied in the cache; results do not depend on the number of threads; `bf16`
/// and bf16 autocast are as in linear.h. Other types and devices take ATen's products on the same pieces.
/// The loss is float, or double for double. Throws ShapeError for shapes that do not fit, Error for types
/// that do not, DataError naming the first row whose target is no class.
LinearCrossEntropy linear_cross_entropy(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                        const at::Tensor& target, double label_smoothing = 0,
                                        std::int64_t ignore_index = -100, bool bf16 = false);

/// The same of plain ATen calls, with all scores in memory; differentiable as often as they are.
LinearCrossEntropy linear_cross_entropy_reference(const at::Tensor& x, const at::Tensor& weight,
                                                  const at::Tensor& bias, const at::Tensor& target,
                                                  double label_smoothing = 0,
                                                  std::int64_t ignore_index = -100);

}  // namespace stoa::ops
