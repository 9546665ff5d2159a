#pragma once

#include <ATen/core/Tensor.h>

#include "stoa/ops/mixture_experts.h"

// The sorted mixture in fp32 on the CPU, block by block of an expert's rows: gathered, multiplied, activated
// and multiplied again while they are in the cache. All experts' blocks are one list that the threads share,
// so that many experts of few rows cost no more than few experts of many. Internal to ops/mixture*.cpp.
namespace stoa::ops {

/// Whether mixtures of these tensors can be computed so.
bool can_use_blocks(const at::Tensor& x, const ExpertWeights& weights);

/// x [tokens, dim] contiguous. The trace's tensors "before" lack the biases here; without `keep` only
/// output_behind [rows, dim_out] is there.
ExpertTrace blocks_forward(const at::Tensor& x, const ExpertWeights& weights, const RowLayout& layout,
                           const MixtureSettings& settings, const RowMasks& masks, bool keep);

struct BlockGradients {
  at::Tensor rows;  ///< [rows, dim]: of every row's token
  at::Tensor gate;  ///< [assignments]
  ExpertWeights weights;
};

/// From the gradient of the combined result [tokens, dim_out], contiguous; fp32 `gate` by assignment.
/// Gradients that are not needed stay undefined, but that of the gates.
BlockGradients blocks_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& gate,
                               const ExpertTrace& trace, const ExpertWeights& weights,
                               const RowLayout& layout, const MixtureSettings& settings,
                               const RowMasks& masks, const ExpertNeeds& needs);

}  // namespace stoa::ops
