// The layers as stages of several processes (pipeline parallelism).
#include <ATen/ATen.h>

#include <algorithm>

#include "stoa/base/format.h"
#include "stoa/nn/moe/statistics_row.h"
#include "stoa/nn/parameters.h"
#include "stoa/systems/shared_layers.h"
#include "stoa/systems/wide_net/model.h"

namespace stoa::wide_net {

std::map<std::string, std::vector<std::int64_t>> WideNetImpl::users() const {
  std::map<std::string, std::vector<std::int64_t>> users;
  const auto add = [&](const char* list, const torch::nn::ModuleList& modules, std::int64_t Layer::*module) {
    const auto layers = served(module);
    for (std::size_t i = 0; i < layers.size(); ++i)
      for (const auto& item : modules->ptr(i)->named_parameters())
        users.emplace(format("{}.{}.{}", list, i, item.key()), layers[i]);
  };
  add("attention", attention, &Layer::attention);
  add("mlp", mlp, &Layer::mlp);
  add("mixture", mixture, &Layer::mixture);
  add("norm1", norm1, &Layer::norm);
  add("norm2", norm2, &Layer::norm);
  for (std::size_t i = 0; i < scale1.size(); ++i)
    for (const char* scale : {"scale1", "scale2"})
      users[format("{}_{}", scale, i)] = {static_cast<std::int64_t>(i)};
  for (const auto& parameter : nn::distinct_parameters(*this)) {
    const auto& name = parameter.name;
    if (users.contains(name)) continue;
    const bool front = name == "position" || name.starts_with("patch.");
    users[name] = {front ? 0 : options_.depth - 1};
  }
  return users;
}

/// Any number of stages will do, up to one for each layer.
void WideNetImpl::require_stages(std::int64_t) const {}

std::int64_t WideNetImpl::dropout_calls(std::int64_t layer) const {
  const std::int64_t rows = options_.dropout > 0 ? 1 : 0, weights = options_.attention_dropout > 0 ? 1 : 0;
  const std::int64_t noise = options_.router.noise > 0 ? 1 : 0;
  std::int64_t calls = rows;  // behind positions
  for (std::int64_t i = 0; i < layer; ++i) {
    calls += weights + 3 * rows;        // behind attention and both layers of a perceptron or experts
    calls += path_rate(i) > 0 ? 2 : 0;  // both branches
    calls += options_.has_mixture(i) ? noise : 0;
  }
  return calls;
}

at::Tensor WideNetImpl::all_norms(const Handed& handed) const {
  const auto own = at::stack({norm_weights(norm1, own_), norm_weights(norm2, own_)});
  return handed.norms.defined() ? at::cat({handed.norms, own.to(handed.norms.scalar_type())}, 1) : own;
}

WideNetImpl::Handed WideNetImpl::receive(std::int64_t samples) const {
  const auto& o = options_;
  const auto mixtures = std::count_if(layers_.begin(), layers_.begin() + own_.begin,
                                      [](const Layer& layer) { return layer.mixture >= 0; });
  std::int64_t groups = 1;
  if (mixtures > 0) {  // and so the first layer here has one too
    const auto& here = layers_[static_cast<std::size_t>(own_.begin)];
    const auto* const others =
        mixture->ptr(static_cast<std::size_t>(here.mixture))->as<nn::Mixture>()->expert_exchange();
    groups = nn::routing_groups(samples, o.router, is_training() ? others : nullptr);
  }
  const auto sums = samples * tokens_ * o.dim;
  const auto said = mixtures > 0 ? mixtures * nn::statistics_size(o.router, groups) : 0;
  const auto norms = o.share_norms ? 0 : 2 * own_.begin * o.dim;
  const auto message = stages_->receive({sums + said + norms}, position.options());
  Handed handed;
  handed.x = message.narrow(0, 0, sums).view({samples, tokens_, o.dim});
  if (said > 0) handed.calls = nn::statistics_of(message.narrow(0, sums, said), o.router, groups);
  if (norms > 0) handed.norms = message.detach().narrow(0, sums + said, norms).view({2, own_.begin, o.dim});
  return handed;
}

at::Tensor WideNetImpl::send(const Handed& handed) const {
  const auto type = position.scalar_type();
  std::vector<at::Tensor> parts = {handed.x.to(type).flatten()};
  if (!handed.calls.empty()) parts.push_back(nn::statistics_row(handed.calls, options_.router, type));
  if (!options_.share_norms) parts.push_back(all_norms(handed).to(type).flatten());
  return stages_->send(parts.size() == 1 ? parts.front() : at::cat(parts));
}

}  // namespace stoa::wide_net
