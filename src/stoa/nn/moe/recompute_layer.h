#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "stoa/nn/layer_weights.h"
#include "stoa/nn/moe/router.h"

namespace stoa::nn {

/// What goes from one layer of a transformer to the next: the residual sum, what the next branch reads (for
/// post-norm blocks the same tensor), and what the layer's router says, if it has one.
struct LayerPass {
  at::Tensor x, normed;
  std::optional<RoutingStatistics> routing;
};

/// A layer as a function of the sum and of what its first branch reads.
using Layer = std::function<LayerPass(const at::Tensor& x, const at::Tensor& normed)>;

/// layer(x, normed) that is run again in the backward pass instead of keeping what that needs (recompute.h).
/// The differentiable part of the routing statistics reaches the losses made of it.
LayerPass recompute_layer(Layer layer, const at::Tensor& x, const at::Tensor& normed);

/// layer(x, normed), run again in the backward pass if `again`, with the weights of the layer numbered
/// `place` brought to it (layer_weights.h) unless `weights` is null.
LayerPass run_layer(Layer layer, const at::Tensor& x, const at::Tensor& normed, bool again,
                    const std::shared_ptr<const LayerWeights>& weights, std::int64_t place);

}  // namespace stoa::nn
