#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace stoa::nn {

/// Layers [begin, end) of a model.
struct LayerRange {
  std::int64_t begin = 0, end = 0;
  bool has(std::int64_t layer) const { return begin <= layer && layer < end; }
};

/// Reaches the processes that hold the other layers of a model (pipeline parallelism): each is a stage, with
/// layers that follow one another. All make the forward passes of one batch after the other in one order, and
/// the backward passes in the same.
class LayerExchange {
 public:
  virtual ~LayerExchange() = default;
  virtual std::int64_t stage() const = 0;
  virtual std::int64_t stages() const = 0;
  /// Sends x to the next stage without waiting for it. A scalar zero, whose backward pass, whatever its own
  /// gradient, waits for that of x.
  virtual at::Tensor send(const at::Tensor& x) const = 0;
  /// What the stage before sends; the backward pass sends it the gradient.
  virtual at::Tensor receive(at::IntArrayRef sizes, const at::TensorOptions& options) const = 0;
  /// Replaces values by the last stage's, without gradients.
  virtual void take_last(const at::Tensor& values) const = 0;
};

/// Implemented by models that can work with some of their layers.
class SplitsLayers {
 public:
  virtual ~SplitsLayers() = default;
  virtual std::int64_t layers() const = 0;
  /// The layers that use each parameter, ascending. What comes in front of the layers (embeddings) counts as
  /// the first one's, what comes behind as the last one's.
  virtual std::map<std::string, std::vector<std::int64_t>> users() const = 0;
  /// Throws ConfigError where the layers cannot be split into so many stages.
  virtual void require_stages(std::int64_t stages) const = 0;
  /// From now on only these layers are here; null: all are here again.
  virtual void use_layers(LayerRange own, std::shared_ptr<const LayerExchange> exchange) = 0;
};

}  // namespace stoa::nn
