#include "stoa/systems/wide_net/model.h"

#include <ATen/ATen.h>
#include <torch/types.h>

#include <map>
#include <memory>
#include <utility>

#include "stoa/base/format.h"
#include "stoa/nn/init.h"
#include "stoa/nn/part_scope.h"
#include "stoa/ops/dropout.h"
#include "stoa/systems/shared_layers.h"

namespace stoa::wide_net {
namespace {

constexpr double kNormEps = 1e-6;

torch::nn::LayerNorm layer_norm(std::int64_t dim) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim}).eps(kNormEps));
}

/// Index of the module for `key` in `list`, made by `make` the first time the key is seen.
template <class Make>
std::int64_t module_for(std::int64_t key, std::map<std::int64_t, std::int64_t>& index,
                        torch::nn::ModuleList& list, const Make& make) {
  const auto [entry, fresh] = index.try_emplace(key, static_cast<std::int64_t>(list->size()));
  if (fresh) list->push_back(make());
  return entry->second;
}

}  // namespace

WideNetImpl::WideNetImpl(const WideNetOptions& options, const ImageClassifierInput& input)
    : options_(options), input_(input), own_{0, options.depth} {
  const std::int64_t dim = options.dim;
  patch = register_module("patch", nn::PatchEmbedding(input.image_size, input.channels, options.patch, dim));
  tokens_ = patch->patches() + (options.class_slot == ClassSlot::kZero ? 1 : 0);
  position = register_parameter("position", at::empty({tokens_, dim}));
  nn::normal_(position, 0.02);
  build_layers();
  final_norm = register_module("final_norm", layer_norm(dim));
  if (options.pooling == Pooling::kMap)
    map_attention = register_module(
        "map_attention", nn::Attention(nn::AttentionOptions{dim, options.heads, 0, options.attention_init}));
  if (options.representation) representation = register_module("representation", nn::Linear(dim, dim));
  head = register_module("head", nn::Linear(dim, input.classes));
}

void WideNetImpl::build_layers() {
  const auto& o = options_;
  register_module("attention", attention);
  register_module("mlp", mlp);
  register_module("mixture", mixture);
  register_module("norm1", norm1);
  register_module("norm2", norm2);
  nn::MlpOptions dense{o.dim, o.mlp_dim, o.dropout, o.activation, o.ffn_output_activation};
  nn::MixtureOptions experts{o.dim,     o.expert_width(), o.dropout, o.activation, o.ffn_output_activation,
                             o.backend, o.router};
  std::map<std::int64_t, std::int64_t> attentions, mlps, mixtures;
  for (std::int64_t i = 0; i < o.depth; ++i) {
    const std::int64_t group = o.group_of(i);
    Layer layer{-1, -1, -1, o.share_norms ? 0 : i};
    layer.attention = module_for(o.share_attention ? group : i, attentions, attention, [&] {
      return nn::Attention(nn::AttentionOptions{o.dim, o.heads, o.attention_dropout, o.attention_init});
    });
    const std::int64_t key = o.share_mlp ? group : i;
    if (o.has_mixture(i))
      layer.mixture = module_for(key, mixtures, mixture, [&] { return nn::Mixture(experts); });
    else
      layer.mlp = module_for(key, mlps, mlp, [&] { return nn::Mlp(dense); });
    if (static_cast<std::int64_t>(norm1->size()) <= layer.norm) {
      norm1->push_back(layer_norm(o.dim));
      norm2->push_back(layer_norm(o.dim));
    }
    if (o.layer_scale > 0) {
      scale1.push_back(register_parameter(format("scale1_{}", i), at::full({o.dim}, o.layer_scale)));
      scale2.push_back(register_parameter(format("scale2_{}", i), at::full({o.dim}, o.layer_scale)));
    }
    layers_.push_back(layer);
  }
}

at::Tensor WideNetImpl::drop(const at::Tensor& x) const {
  return ops::dropout(x, is_training() ? options_.dropout : 0);
}

at::Tensor WideNetImpl::embed(const at::Tensor& images) {
  const nn::PartScope part("patch embedding");
  auto x = patch->forward(images);
  if (options_.class_slot == ClassSlot::kZero) x = at::constant_pad_nd(x, {0, 0, 1, 0});
  x = x + position;
  return drop(x);
}

double WideNetImpl::path_rate(std::int64_t layer) const {
  return options_.depth > 1
             ? options_.drop_path * static_cast<double>(layer) / static_cast<double>(options_.depth - 1)
             : 0;
}

at::Tensor WideNetImpl::path_factor(const at::Tensor& x, std::int64_t layer) const {
  const double rate = path_rate(layer);
  if (rate == 0 || !is_training()) return {};
  return ops::dropout(at::ones({x.size(0), 1}, x.options()), rate).squeeze(1);
}

ops::ResidualNorm WideNetImpl::add(const at::Tensor& x, const at::Tensor& y,
                                   const std::vector<at::Tensor>& scales, std::int64_t layer,
                                   const torch::nn::LayerNormImpl* norm) {
  const nn::PartScope part("layer norms");
  const auto factor = path_factor(x, layer);
  const auto scale = scales.empty() ? at::Tensor() : scales[static_cast<std::size_t>(layer)];
  if (norm != nullptr) return ops::residual_norm(x, y, {}, norm->weight, norm->bias, kNormEps, scale, factor);
  auto branch = y;
  if (scale.defined()) branch = branch * scale;
  if (factor.defined()) branch = branch * factor.view({-1, 1, 1});
  const auto sum = x + branch;
  return {sum, sum};
}

at::Tensor WideNetImpl::pool(const at::Tensor& x) {
  const nn::PartScope part(map_attention ? "attention pooling" : "head");
  switch (options_.pooling) {
    case Pooling::kMean:
      return x.mean(1);
    case Pooling::kToken:
      return x.select(1, 0);
    case Pooling::kMap:
      return map_attention->forward(x).select(1, 0);
  }
  return x.mean(1);
}

const torch::nn::LayerNormImpl& WideNetImpl::norm_of(const torch::nn::ModuleList& norms,
                                                     std::int64_t layer) const {
  return *norms->ptr<torch::nn::LayerNormImpl>(
      static_cast<std::size_t>(layers_[static_cast<std::size_t>(layer)].norm));
}

nn::LayerPass WideNetImpl::pass_layer(std::int64_t i, const at::Tensor& x, const at::Tensor& normed,
                                      WideNetTrace* trace) {
  const auto& layer = layers_[static_cast<std::size_t>(i)];
  const auto mixed = nn::in_part("attention", [&] {
    const auto y = attention[layer.attention]->as<nn::Attention>()->forward(normed);
    return drop(y);
  });
  const auto middle = add(x, mixed, scale1, i, &norm_of(norm2, i));
  nn::LayerPass passed;
  at::Tensor answer;
  if (layer.mixture >= 0) {
    const nn::PartScope part("experts");
    auto result = mixture[layer.mixture]->as<nn::Mixture>()->forward(middle.normed);
    answer = result.output;
    passed.routing = std::move(result.statistics);
    if (trace != nullptr) trace->routing.push_back(std::move(result.routing));
  } else {
    const nn::PartScope part("perceptrons");
    answer = mlp[layer.mlp]->as<nn::Mlp>()->forward(middle.normed);
  }
  const auto* const next = i + 1 == options_.depth ? final_norm.get()
                           : i + 1 == own_.end     ? nullptr
                                                   : &norm_of(norm1, i + 1);
  const auto after = add(middle.sum, answer, scale2, i, next);
  passed.x = after.sum;
  passed.normed = after.normed;
  if (trace != nullptr) {
    trace->after_attention.push_back(middle.sum);
    trace->ffn_input.push_back(middle.normed);
    trace->output.push_back(passed.x);
  }
  return passed;
}

ImageClassifierOutput WideNetImpl::classify(const at::Tensor& images) {
  return classify(images, nullptr);
}

ImageClassifierOutput WideNetImpl::classify(const at::Tensor& images, WideNetTrace* trace) {
  std::optional<ops::BatchPartScope> count;  // dropout counts as it would in one process
  if (own_.begin > 0 && is_training()) {
    auto part = ops::batch_part();
    part.calls += dropout_calls(own_.begin);
    count.emplace(part);
  }
  Handed handed = own_.begin == 0 ? Handed{embed(images), {}, {}, {}} : receive(images.size(0));
  if (trace != nullptr) trace->embedded = handed.x;
  handed.normed = nn::in_part("layer norms", [&] {
    const auto& first = norm_of(norm1, own_.begin);
    return ops::layer_norm(handed.x, first.weight, first.bias, kNormEps);
  });
  const bool again = options_.recompute && is_training() && trace == nullptr;
  for (std::int64_t i = own_.begin; i < own_.end; ++i) {
    const auto layer = [this, i, trace](const at::Tensor& sum, const at::Tensor& input) {
      return pass_layer(i, sum, input, trace);
    };
    auto passed = nn::run_layer(layer, handed.x, handed.normed, again, brought_, i);
    handed.x = passed.x;
    handed.normed = passed.normed;
    if (passed.routing) handed.calls.push_back(std::move(*passed.routing));
  }
  if (own_.end < options_.depth) return {{}, {}, send(handed), stages_};
  const auto pooled = pool(handed.normed);
  const at::Tensor represented =
      representation ? nn::in_part("representation", [&] { return representation->forward(pooled).tanh(); })
                     : pooled;
  ImageClassifierOutput output;
  output.stages = stages_;
  output.logits = nn::in_part("head", [&] { return head->forward(represented); });
  output.side = side_outputs(handed);
  if (trace != nullptr) {
    trace->final_norm = handed.normed;
    trace->pooled = pooled;
    trace->representation = represented;
    trace->logits = output.logits;
  }
  return output;
}

nn::SideOutputs WideNetImpl::side_outputs(const Handed& last) const {
  nn::SideOutputs side;
  if (!last.calls.empty())
    side = nn::in_part("router", [&] { return nn::routing_outputs(last.calls, options_.router); });
  // in one process the weights of the norms are at hand where a report shows them
  if (options_.share_norms || !(is_training() || stages_)) return side;
  const auto norms = all_norms(last);
  side.statistics.push_back({"norm1.spread", ln_spread(norms[0])});
  side.statistics.push_back({"norm2.spread", ln_spread(norms[1])});
  return side;
}

}  // namespace stoa::wide_net
