#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>

#include "stoa/nn/moe/router.h"

namespace stoa::nn {

/// What goes from one layer of a transformer to the next: the residual sum, what the next branch reads (for
/// post-norm blocks the same tensor), and what the layer's router says, if it has one.
struct LayerPass {
  at::Tensor x, normed;
  std::optional<RoutingStatistics> routing;
};

/// layer(x, normed) that is run again in the backward pass instead of keeping what that needs (recompute.h).
/// The differentiable part of the routing statistics reaches the losses made of it.
LayerPass recompute_layer(std::function<LayerPass(const at::Tensor& x, const at::Tensor& normed)> layer,
                          const at::Tensor& x, const at::Tensor& normed);

}  // namespace stoa::nn
