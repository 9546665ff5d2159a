// Weights of relatives: a ViT's for a model that shares its layers, a shared model's for one that does not, a
// trained perceptron's for experts.
#include <ATen/ATen.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/systems/wide_net/model.h"

namespace stoa::wide_net {
namespace {

using nn::Weights;

/// A mixture whose experts all are the perceptron `mlp`; its router is `drawn`'s.
Weights upcycled(const Weights& mlp, std::int64_t experts, const at::Tensor& router) {
  const auto copies = [&](const at::Tensor& tensor) {
    auto sizes = tensor.sizes().vec();
    sizes.insert(sizes.begin(), experts);
    return tensor.unsqueeze(0).expand(sizes).contiguous();
  };
  return {{"router.weight", router},
          {"w_in", copies(mlp.at("in.weight").t())},
          {"b_in", copies(mlp.at("in.bias"))},
          {"w_out", copies(mlp.at("out.weight").t())},
          {"b_out", copies(mlp.at("out.bias"))}};
}

}  // namespace

/// Layers that each module of one of the lists serves, by module.
std::vector<std::vector<std::int64_t>> WideNetImpl::served(std::int64_t Layer::*module) const {
  std::vector<std::vector<std::int64_t>> served;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const std::int64_t number = layers_[i].*module;
    if (number < 0) continue;
    served.resize(std::max(served.size(), static_cast<std::size_t>(number) + 1));
    served[static_cast<std::size_t>(number)].push_back(static_cast<std::int64_t>(i));
  }
  return served;
}

nn::Weights WideNetImpl::adapt(nn::Weights weights, const nn::AdaptOptions& options) const {
  const auto tie = [&](const std::vector<Weights>& trained, std::int64_t Layer::*module, const char* list) {
    return nn::tie_modules(trained, served(module), options_.depth, options.tie, list);
  };
  const auto tie_in_place = [&](std::int64_t Layer::*module, const char* list) {
    nn::put_modules(weights, list, tie(nn::take_modules(weights, list), module, list));
  };
  tie_in_place(&Layer::attention, "attention");
  tie_in_place(&Layer::norm, "norm1");
  tie_in_place(&Layer::norm, "norm2");

  const auto perceptrons = nn::take_modules(weights, "mlp");
  auto mixtures = nn::take_modules(weights, "mixture");
  if (!mlp->is_empty()) nn::put_modules(weights, "mlp", tie(perceptrons, &Layer::mlp, "mlp"));
  if (mixture->is_empty()) {  // load_module_state() names what is left over
    nn::put_modules(weights, "mixture", mixtures);
    if (mlp->is_empty()) nn::put_modules(weights, "mlp", perceptrons);
    return weights;
  }
  if (mixtures.empty()) {
    if (!options.upcycle)
      throw ConfigError(
          "the weights have perceptrons where the model has mixtures; let experts start as copies of them "
          "with "
          "`initial.upcycle` = true, or name a trained mixture");
    const auto tied = tie(perceptrons, &Layer::mixture, "mlp");
    for (std::size_t i = 0; i < tied.size(); ++i)
      mixtures.push_back(
          upcycled(tied[i], options_.router.experts, mixture->ptr(i)->as<nn::Mixture>()->router->weight.detach()));
    nn::put_modules(weights, "mixture", mixtures);
  } else {
    if (mlp->is_empty()) nn::put_modules(weights, "mlp", perceptrons);
    nn::put_modules(weights, "mixture", tie(mixtures, &Layer::mixture, "mixture"));
  }
  return weights;
}

}  // namespace stoa::wide_net
