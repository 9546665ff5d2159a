#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "stoa/nn/weight_split.h"
#include "stoa/ops/linear_cross_entropy.h"

// Embedding and loss over a vocabulary whose rows are split over processes (arXiv 1909.08053, section 3). All
// of them call these with the same tokens.
namespace stoa::nn {

/// Rows of the whole table, of which `weight` [own rows, dim] is this process's share: ids [...] -> [...,
/// dim].
at::Tensor split_embedding(const at::Tensor& weight, const at::Tensor& ids, std::int64_t vocabulary,
                           const WeightExchange& exchange);

/// ops::linear_cross_entropy() of the whole weight and bias, of which these are this process's shares; x
/// [rows, dim] and target [rows] are the same on all. Three numbers a row are exchanged, never scores.
ops::LinearCrossEntropy split_cross_entropy(const at::Tensor& x, const at::Tensor& weight,
                                            const at::Tensor& bias, const at::Tensor& target,
                                            std::int64_t vocabulary, double label_smoothing,
                                            std::int64_t ignore_index, const WeightExchange& exchange);

}  // namespace stoa::nn
