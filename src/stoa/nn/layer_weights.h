#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stoa/nn/recompute.h"

namespace stoa::nn {

/// Brings the weights of a model's layers to where they are used, where no process keeps all of them (ZeRO
/// stage 3). Layers are used in their order forward, and in the reverse of it backward.
class LayerWeights {
 public:
  virtual ~LayerWeights() = default;
  enum class Pass { kForward, kBackward };
  /// Waits until the weights of a layer are here. To be called by all processes alike.
  virtual void bring(std::int64_t layer, Pass pass) const = 0;
  /// They are not needed until they are brought again. As many calls as of bring() let go of them.
  virtual void leave(std::int64_t layer) const = 0;
};

/// Implemented by models whose layers work with weights that are brought to them.
class BringsWeights {
 public:
  virtual ~BringsWeights() = default;
  /// The parameters that one layer alone reads, and that layer. All others are here in all of a pass.
  virtual std::map<std::string, std::int64_t> layer_parameters() const = 0;
  /// From now on weights are brought by it; null: they are here.
  virtual void use_weights(std::shared_ptr<const LayerWeights> weights) = 0;
};

/// run(inputs) with the weights of a layer, which are brought for it and, where gradients are recorded, once
/// more for its backward pass; `weights` null: just run(inputs). Outputs must be defined and differentiable.
/// Between the passes autograd keeps no weight: what it has saved of them is a view of memory that is given
/// back in the meantime.
std::vector<at::Tensor> with_weights(const std::shared_ptr<const LayerWeights>& weights, std::int64_t layer,
                                     const Block& run, const std::vector<at::Tensor>& inputs);

}  // namespace stoa::nn
