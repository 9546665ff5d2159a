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

/// A size that the weights and the model have in common, where `tensor` is among the weights.
struct CommonSize {
  const char* tensor;
  std::int64_t dimension, ours;
  std::string ours_is;  // "`model.dim` is 12"
  const char* cure;
};

/// Refuses weights of another size than the model's, naming the key that sets it.
void require_sizes(const WideNetImpl& model, const Weights& weights) {
  const WideNetOptions& o = model.options();
  const auto size = [](const char* tensor, std::int64_t dimension, const char* key, std::int64_t ours,
                       const char* cure = "set it to that, or name weights of this size") {
    return CommonSize{tensor, dimension, ours, format("`{}` is {}", key, ours), cure};
  };
  const char* expert_key = o.expert_dim > 0 ? "model.expert_dim" : "model.mlp_dim";
  const bool upcycled = model.mlp->is_empty();  // perceptrons, if any, become experts
  const char* experts = model.mixture->is_empty() ? "none" : "mixture.0.w_in";
  const std::int64_t positions = model.position.size(0);
  const CommonSize sizes[] = {
      size("patch.weight", 0, "model.dim", o.dim),
      size("patch.weight", 1, "data.channels", model.patch->weight.size(1)),
      size("patch.weight", 2, "model.patch", o.patch),
      {"position", 0, positions, format("the model has {} positions", positions),
       "set `data.image_size`, `model.patch` and `model.class_slot` as they were, or draw them anew with "
       "`initial.fresh` = [\"position\"]"},
      size("mlp.0.in.weight", 0, upcycled ? expert_key : "model.mlp_dim",
           upcycled ? o.expert_width() : o.mlp_dim),
      size(experts, 0, "model.router.experts", o.router.experts),
      size(experts, 2, expert_key, o.expert_width()),
      size("head.weight", 0, "data.classes", model.head->weight.size(0),
           "a head for other classes is drawn anew with `initial.fresh` = [\"head\"]")};
  for (const auto& [tensor, dimension, ours, ours_is, cure] : sizes) {
    const auto found = weights.find(tensor);
    if (found == weights.end() || dimension >= found->second.dim() || found->second.size(dimension) == ours)
      continue;
    throw ConfigError(format("{}, the weights have {}; {}", ours_is, found->second.size(dimension), cure));
  }
}

/// Refuses to guess how `trained` layers become those of a model of another depth.
void require_depth(std::int64_t depth, std::size_t trained, nn::Tying tie) {
  if (trained <= 1 || static_cast<std::int64_t>(trained) == depth || tie == nn::Tying::kInterpolate) return;
  throw ConfigError(
      format("`model.depth` is {}, the weights have {} layers; set it to {}, or let depths differ by "
             "`initial.tie` = \"interpolate\"",
             depth, trained, trained));
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
  require_sizes(*this, weights);
  const auto trained_norms =
      nn::take_modules(weights, "norm1");  // unless shared, as many as there were layers
  require_depth(options_.depth, trained_norms.size(), options.tie);
  nn::put_modules(weights, "norm1", trained_norms);
  tie_in_place(&Layer::attention, "attention");
  tie_in_place(&Layer::norm, "norm1");
  tie_in_place(&Layer::norm, "norm2");

  const auto perceptrons = nn::take_modules(weights, "mlp");
  auto mixtures = nn::take_modules(weights, "mixture");
  if (!mixtures.empty() && (mixture->is_empty() || (!mlp->is_empty() && perceptrons.empty())))
    throw ConfigError(
        format("`model.mixture_layers` is {}, but the weights have mixtures where the model has perceptrons, "
               "and experts do not become one perceptron; set it as it was (-1: all layers), or name the "
               "weights of a model with perceptrons",
               options_.mixture_layers));
  if (!mlp->is_empty()) nn::put_modules(weights, "mlp", tie(perceptrons, &Layer::mlp, "mlp"));
  if (mixture->is_empty()) return weights;
  if (mixtures.empty()) {
    if (!options.upcycle)
      throw ConfigError(
          "the weights have perceptrons where the model has mixtures; let experts start as copies of them "
          "with "
          "`initial.upcycle` = true, or name a trained mixture");
    const auto tied = tie(perceptrons, &Layer::mixture, "mlp");
    for (std::size_t i = 0; i < tied.size(); ++i)
      mixtures.push_back(upcycled(tied[i], options_.router.experts,
                                  mixture->ptr(i)->as<nn::Mixture>()->router->weight.detach()));
    nn::put_modules(weights, "mixture", mixtures);
  } else {
    if (mlp->is_empty()) nn::put_modules(weights, "mlp", perceptrons);
    nn::put_modules(weights, "mixture", tie(mixtures, &Layer::mixture, "mixture"));
  }
  return weights;
}

}  // namespace stoa::wide_net
