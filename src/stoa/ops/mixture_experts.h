#pragma once

#include <ATen/core/Tensor.h>

#include "stoa/ops/mixture.h"
#include "stoa/ops/mixture_rows.h"

// The experts' products on rows that already lie by expert. Internal to ops/mixture*.cpp.
namespace stoa::ops {

/// The activation as a differentiable ATen call; `input` itself for kNone.
at::Tensor activate(const at::Tensor& input, Activation activation);

/// Dropout masks in order of rows; undefined means none.
struct RowMasks {
  at::Tensor hidden;  ///< [rows, hidden]
  at::Tensor output;  ///< [rows, dim_out]
};

/// What a forward pass over rows computed, each "behind" with activation and mask applied.
struct ExpertTrace {
  at::Tensor hidden_before;  ///< [rows, hidden]
  at::Tensor hidden_behind;  ///< [rows, hidden]
  at::Tensor output_before;  ///< [rows, dim_out]
  at::Tensor output_behind;  ///< [rows, dim_out]
};

/// Runs every expert on its rows [rows, dim]. Without `keep`, activations work in place and only
/// output_behind is meaningful.
ExpertTrace experts_forward(const at::Tensor& rows, const ExpertWeights& weights, const RowLayout& layout,
                            const MixtureSettings& settings, const RowMasks& masks, bool keep);

/// Which gradients are asked for.
struct ExpertNeeds {
  bool rows = false;
  bool w_in = false;
  bool b_in = false;
  bool w_out = false;
  bool b_out = false;
};

/// Gradients that were asked for; the others stay undefined.
struct ExpertGradients {
  at::Tensor rows;
  ExpertWeights weights;
};

/// From the gradient of output_behind (which it may overwrite). `rows` may be undefined unless w_in's
/// gradient is needed, `weights` needs only w_in and w_out.
ExpertGradients experts_backward(at::Tensor grad, const at::Tensor& rows, const ExpertTrace& trace,
                                 const ExpertWeights& weights, const RowLayout& layout,
                                 const MixtureSettings& settings, const RowMasks& masks,
                                 const ExpertNeeds& needs);

}  // namespace stoa::ops
