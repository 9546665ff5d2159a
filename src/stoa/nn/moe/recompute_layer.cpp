#include "stoa/nn/moe/recompute_layer.h"

#include <memory>
#include <utility>
#include <vector>

#include "stoa/nn/recompute.h"

namespace stoa::nn {

LayerPass recompute_layer(std::function<LayerPass(const at::Tensor&, const at::Tensor&)> layer,
                          const at::Tensor& x, const at::Tensor& normed) {
  static constexpr at::Tensor RoutingStatistics::*kDifferentiable[] = {
      &RoutingStatistics::probability, &RoutingStatistics::z, &RoutingStatistics::importance,
      &RoutingStatistics::load_loss};
  const auto first = std::make_shared<std::optional<LayerPass>>();  // the block lives longer than this call
  const auto block = [layer = std::move(layer), first](const std::vector<at::Tensor>& inputs) {
    auto passed = layer(inputs[0], inputs[1]);
    std::vector<at::Tensor> outputs = {passed.x, passed.normed};
    if (passed.routing)
      for (const auto member : kDifferentiable)
        if (((*passed.routing).*member).defined()) outputs.push_back((*passed.routing).*member);
    if (!*first) *first = std::move(passed);
    return outputs;
  };
  const auto outputs = recompute(block, {x, normed});
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

}  // namespace stoa::nn
