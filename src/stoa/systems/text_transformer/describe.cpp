// The model by parts.
#include <ATen/ATen.h>

#include <algorithm>

#include "stoa/base/format.h"
#include "stoa/systems/shared_layers.h"
#include "stoa/systems/text_transformer/model.h"

namespace stoa::text_transformer {
namespace {

std::int64_t count(const torch::nn::Module& module) {
  return nn::count_parameters(module);
}

}  // namespace

nn::ModelDescription TextTransformerImpl::describe() const {
  const auto& o = options_;
  const std::int64_t t = input_.length, d = o.dim, e = o.embedding_width(), f = o.expert_width();
  const std::int64_t mixtures =
      std::count_if(layers_.begin(), layers_.end(), [](const Layer& l) { return l.mixture >= 0; });
  const std::int64_t dense = o.depth - mixtures;
  const auto kept = [&](std::int64_t layers) {
    return o.recompute ? std::min<std::int64_t>(layers, 1) : layers;
  };
  nn::ModelDescription model;
  model.input = format("{} tokens", t);
  std::int64_t embeddings = word.numel() + position.numel() + (segment.defined() ? segment.numel() : 0);
  if (embedding_norm) embeddings += count(*embedding_norm);
  if (projection) embeddings += count(*projection);
  model.parts.push_back({"embeddings", embeddings, projection ? t * e * d : 0, t * (projection ? e + d : d)});
  model.parts.push_back(
      {"attention", count(*attention), o.depth * (t * 4 * d * d + 2 * t * t * d), kept(o.depth) * t * 7 * d});
  if (dense > 0)
    model.parts.push_back({"perceptrons", count(*mlp), dense * t * 2 * d * o.mlp_dim,
                           kept(dense) * t * (3 * d + 2 * o.mlp_dim)});
  if (mixtures > 0) {
    const std::int64_t k = o.router.top_k, experts = o.router.experts;
    std::int64_t routers = 0;
    for (const auto& module : *mixture) routers += count(*module->as<nn::Mixture>()->router);
    model.parts.push_back({"experts", count(*mixture) - routers, mixtures * t * k * 2 * d * f,
                           kept(mixtures) * t * (d + k * (2 * d + 2 * f))});
    model.parts.push_back({"router", routers, mixtures * t * d * experts, kept(mixtures) * t * 2 * experts});
  }
  model.parts.push_back({"layer norms", count(*norm1) + count(*norm2) + (final_norm ? count(*final_norm) : 0),
                         0, (2 * o.depth + 1) * t * d});
  if (pooler) model.parts.push_back({"pooler", count(*pooler), d * d, 2 * d});
  if (mask_dense)  // of a masked model every token could be asked for
    model.parts.push_back({"token head", count(*mask_dense) + count(*mask_norm) + mask_bias.numel(),
                           t * (d * e + e * input_.vocabulary), t * 3 * e});
  if (input_.head == TextHead::kCausal)
    model.parts.push_back({"token head", 0, t * e * input_.vocabulary, t * e});
  if (pair_head) model.parts.push_back({"pair head", count(*pair_head), 2 * d, d});
  if (class_head) model.parts.push_back({"class head", count(*class_head), d * input_.classes, d});
  if (score.defined()) model.parts.push_back({"class head", score.numel(), d * input_.classes, d});
  if (span_head) model.parts.push_back({"span head", count(*span_head), t * 2 * d, t * d});
  return model;
}

std::vector<Exhibit> TextTransformerImpl::exhibits(const std::vector<nn::NamedTensor>& statistics) const {
  if (!options_.share_attention && !options_.share_mlp) return {};
  std::vector<std::int64_t> mixing;
  for (std::int64_t i = 0; i < options_.depth; ++i)
    if (layers_[static_cast<std::size_t>(i)].mixture >= 0) mixing.push_back(i);
  return shared_layer_exhibits(statistics, mixing, norm1, norm2);
}

}  // namespace stoa::text_transformer
