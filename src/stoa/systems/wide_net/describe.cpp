// The model by parts, and the pictures a report shows of it.
#include <ATen/ATen.h>

#include <algorithm>

#include "stoa/base/format.h"
#include "stoa/systems/shared_layers.h"
#include "stoa/systems/wide_net/model.h"

namespace stoa::wide_net {
namespace {

std::int64_t count(const torch::nn::Module& module) {
  return nn::count_parameters(module);
}

}  // namespace

nn::ModelDescription WideNetImpl::describe() const {
  const auto& o = options_;
  const std::int64_t d = o.dim, t = tokens_, n = patch->patches();
  const std::int64_t mixtures =
      std::count_if(layers_.begin(), layers_.end(), [](const Layer& l) { return l.mixture >= 0; });
  const std::int64_t dense = o.depth - mixtures;
  const std::int64_t f = o.expert_width(), experts = o.router.experts, k = o.router.top_k;
  // layers whose activations are there at once; between the others stand the layer norms' sums and results
  const auto kept = [&](std::int64_t layers) {
    return o.recompute ? std::min<std::int64_t>(layers, 1) : layers;
  };
  nn::ModelDescription model;
  model.input = format("{} x {} x {}", input_.channels, input_.image_size, input_.image_size);
  // what the operators of ops/ keep for the backward pass in fp32 on a CPU; stoa plan is held to it
  model.parts.push_back({"patch embedding", count(*patch), n * input_.channels * o.patch * o.patch * d,
                         n * input_.channels * o.patch * o.patch});
  model.parts.push_back({"positions", position.numel(), 0, 0});
  // input, q k v, mixed, and the logarithms of the softmax's sums
  model.parts.push_back({"attention", count(*attention), o.depth * (t * 4 * d * d + 2 * t * t * d),
                         kept(o.depth) * t * (5 * d + o.heads)});
  const bool plain = o.ffn_output_activation == ops::Activation::kNone;
  if (dense > 0) {  // the fused perceptron makes what is behind its activation anew
    const std::int64_t hidden = o.dropout == 0 && plain ? o.mlp_dim : 2 * o.mlp_dim;
    model.parts.push_back({"perceptrons", count(*mlp), dense * t * 2 * d * o.mlp_dim,
                           kept(dense) * t * (d + hidden + (plain ? 0 : d))});
  }
  if (mixtures > 0) {
    std::int64_t routers = 0;
    for (const auto& module : *mixture) routers += count(*module->as<nn::Mixture>()->router);
    const std::int64_t masks = o.dropout > 0 ? f + d : 0;
    model.parts.push_back({"experts", count(*mixture) - routers, mixtures * t * k * 2 * d * f,
                           kept(mixtures) * t * (d + k * (2 * f + (plain ? 1 : 2) * d + masks))});
    model.parts.push_back(
        {"router", routers, mixtures * t * d * experts, kept(mixtures) * t * (2 * experts + 8 * k)});
  }
  // the sums, with mean and deviation of each
  model.parts.push_back({"layer norms", count(*norm1) + count(*norm2) + count(*final_norm), 0,
                         (2 * o.depth + 1) * t * (d + 2)});
  if (!scale1.empty()) model.parts.push_back({"layer scales", 2 * o.depth * d, 0, 2 * kept(o.depth) * t * d});
  if (map_attention)
    model.parts.push_back(
        {"attention pooling", count(*map_attention), t * 4 * d * d + 2 * t * t * d, t * 6 * d});
  if (representation) model.parts.push_back({"representation", count(*representation), d * d, 2 * d});
  model.parts.push_back({"head", count(*head), d * input_.classes, d + input_.classes});
  return model;
}

/// Norms are left out: a layer ends with that of the next.
std::map<std::string, std::int64_t> WideNetImpl::layer_parameters() const {
  std::map<std::string, std::int64_t> parameters;
  const auto add = [&](const char* list, const torch::nn::ModuleList& modules, std::int64_t Layer::*module) {
    const auto layers = served(module);
    for (std::size_t i = 0; i < layers.size(); ++i)
      if (layers[i].size() == 1)
        for (const auto& item : modules->ptr(i)->named_parameters())
          parameters.emplace(format("{}.{}.{}", list, i, item.key()), layers[i].front());
  };
  add("attention", attention, &Layer::attention);
  add("mlp", mlp, &Layer::mlp);
  add("mixture", mixture, &Layer::mixture);
  return parameters;
}

std::vector<Exhibit> WideNetImpl::exhibits(const std::vector<nn::NamedTensor>& statistics) const {
  std::vector<std::int64_t> mixing;
  for (std::int64_t i = 0; i < options_.depth; ++i)
    if (layers_[static_cast<std::size_t>(i)].mixture >= 0) mixing.push_back(i);
  return shared_layer_exhibits(statistics, mixing, norm1, norm2);
}

}  // namespace stoa::wide_net
