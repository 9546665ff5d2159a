#include "stoa/nn/moe/recompute_layer.h"

#include <memory>
#include <utility>
#include <vector>

#include "stoa/nn/recompute.h"

namespace stoa::nn {
namespace {

using Tensors = std::vector<at::Tensor>;

/// The layer as a block of tensors, which `run` runs on inputs.
LayerPass pass_block(Layer layer, const at::Tensor& x, const at::Tensor& normed,
                     const std::function<Tensors(const Block&, const Tensors&)>& run) {
  static constexpr at::Tensor RoutingStatistics::*kDifferentiable[] = {
      &RoutingStatistics::probability, &RoutingStatistics::z, &RoutingStatistics::importance,
      &RoutingStatistics::load_loss};
  const auto first = std::make_shared<std::optional<LayerPass>>();  // the block lives longer than this call
  const auto block = [layer = std::move(layer), first](const Tensors& inputs) {
    auto passed = layer(inputs[0], inputs[1]);
    Tensors outputs = {passed.x, passed.normed};
    if (passed.routing)
      for (const auto member : kDifferentiable)
        if (((*passed.routing).*member).defined()) outputs.push_back((*passed.routing).*member);
    if (!*first) *first = std::move(passed);
    return outputs;
  };
  const auto outputs = run(block, {x, normed});
  LayerPass passed = **first;
  **first = {};  // of it the second run needs nothing
  passed.x = outputs[0];
  passed.normed = outputs[1];
  auto next = outputs.begin() + 2;
  if (passed.routing)
    for (const auto member : kDifferentiable)
      if (((*passed.routing).*member).defined()) (*passed.routing).*member = *next++;
  return passed;
}

}  // namespace

LayerPass recompute_layer(Layer layer, const at::Tensor& x, const at::Tensor& normed) {
  return pass_block(std::move(layer), x, normed, recompute);
}

LayerPass run_layer(Layer layer, const at::Tensor& x, const at::Tensor& normed, bool again,
                    const std::shared_ptr<const LayerWeights>& weights, std::int64_t place) {
  if (!weights) return again ? recompute_layer(std::move(layer), x, normed) : layer(x, normed);
  return pass_block(std::move(layer), x, normed, [&](const Block& block, const Tensors& inputs) {
    const Block twice = [&](const Tensors& given) { return recompute(block, given); };
    return with_weights(weights, place, again ? twice : block, inputs);
  });
}

}  // namespace stoa::nn
