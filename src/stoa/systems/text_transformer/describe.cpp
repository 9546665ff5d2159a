// The model by parts, and by layers.
#include <ATen/ATen.h>

#include <algorithm>

#include "stoa/base/errors.h"
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
  std::int64_t embeddings =
      input_.vocabulary * e + position.numel() + (segment.defined() ? segment.numel() : 0);
  if (embedding_norm) embeddings += count(*embedding_norm);
  if (projection) embeddings += count(*projection);
  // what the operators of ops/ keep for the backward pass in fp32 on a CPU; stoa plan is held to it
  model.parts.push_back({"embeddings", embeddings, projection ? t * e * d : 0,
                         t * ((embedding_norm ? e + 2 : 0) + (projection ? e : 0))});
  const std::int64_t seen = o.linformer > 0 ? o.linformer : t;
  // input, q k v, mixed, and the logarithms of the softmax's sums
  model.parts.push_back({"attention", count(*attention), o.depth * (t * 4 * d * d + 2 * t * seen * d),
                         kept(o.depth) * t * (5 * d + o.heads)});
  if (o.linformer > 0)  // keys and values are kept projected too
    model.parts.push_back(
        {"projections", count(*projections), o.depth * 2 * t * seen * d, kept(o.depth) * 2 * seen * d});
  if (dense > 0)  // the fused perceptron makes what is behind its activation anew
    model.parts.push_back(
        {"perceptrons", count(*mlp), dense * t * 2 * d * o.mlp_dim, kept(dense) * t * (d + o.mlp_dim)});
  if (mixtures > 0) {
    const std::int64_t k = o.router.top_k, experts = o.router.experts;
    std::int64_t routers = 0;
    for (const auto& module : *mixture) routers += count(*module->as<nn::Mixture>()->router);
    model.parts.push_back({"experts", count(*mixture) - routers, mixtures * t * k * 2 * d * f,
                           kept(mixtures) * t * (d + k * (2 * f + d))});
    model.parts.push_back(
        {"router", routers, mixtures * t * d * experts, kept(mixtures) * t * (2 * experts + 8 * k)});
  }
  // the sums, with mean and deviation of each
  model.parts.push_back({"layer norms", count(*norm1) + count(*norm2) + (final_norm ? count(*final_norm) : 0),
                         0, (2 * o.depth + (o.norm == NormPlace::kPre ? 1 : 0)) * t * (d + 2)});
  if (pooler) model.parts.push_back({"pooler", count(*pooler), d * d, 2 * d});
  if (mask_dense)  // of a masked model every token could be asked for
    model.parts.push_back({"token head", count(*mask_dense) + count(*mask_norm) + mask_bias.numel(),
                           t * (d * e + e * input_.vocabulary), t * (d + 3 * e)});
  if (input_.head == TextHead::kCausal)
    model.parts.push_back({"token head", 0, t * e * input_.vocabulary, t * e});
  if (pair_head) model.parts.push_back({"pair head", count(*pair_head), 2 * d, d});
  if (class_head) model.parts.push_back({"class head", count(*class_head), d * input_.classes, d});
  if (score.defined()) model.parts.push_back({"class head", score.numel(), d * input_.classes, d});
  if (span_head) model.parts.push_back({"span head", count(*span_head), t * 2 * d, t * d});
  return model;
}

std::map<std::string, std::vector<std::int64_t>> TextTransformerImpl::users() const {
  std::map<std::string, std::vector<std::int64_t>> users;
  const auto add = [&](const std::string& list, const torch::nn::ModuleList& modules, std::int64_t module,
                       std::int64_t layer) {
    if (module < 0) return;
    const auto prefix = format("{}.{}.", list, module);
    for (const auto& item : modules->ptr(static_cast<std::size_t>(module))->named_parameters())
      users[prefix + item.key()].push_back(layer);
  };
  for (std::int64_t i = 0; i < options_.depth; ++i) {
    const auto& layer = layers_[static_cast<std::size_t>(i)];
    add("attention", attention, layer.attention, i);
    add("projections", projections, layer.projections, i);
    add("mlp", mlp, layer.mlp, i);
    add("mixture", mixture, layer.mixture, i);
    add("norm1", norm1, layer.norm, i);
    add("norm2", norm2, layer.norm, i);
  }
  const bool tied = input_.head == TextHead::kMasked || input_.head == TextHead::kCausal;
  for (const auto& parameter : nn::distinct_parameters(*this)) {
    const auto& name = parameter.name;
    if (users.contains(name)) continue;
    const bool front = name == "word" || name == "position" || name == "segment" ||
                       name.starts_with("embedding_norm.") || name.starts_with("projection.");
    if (front) users[name].push_back(0);
    if (!front || (tied && name == "word")) users[name].push_back(options_.depth - 1);
  }
  return users;
}

/// Norms are left out: a layer may end with that of the next.
std::map<std::string, std::int64_t> TextTransformerImpl::layer_parameters() const {
  std::map<std::string, std::int64_t> parameters;
  for (const auto& [name, layers] : users())
    if (layers.size() == 1 && (name.starts_with("attention.") || name.starts_with("projections.") ||
                               name.starts_with("mlp.") || name.starts_with("mixture.")))
      parameters.emplace(name, layers.front());
  return parameters;
}

void TextTransformerImpl::require_stages(std::int64_t stages) const {
  const auto refuse = [&](const char* what) {
    throw ConfigError(format("`parallel.pipeline` is {}, but {}; set it to 1", stages, what));
  };
  if (input_.head != TextHead::kMasked && input_.head != TextHead::kCausal)
    refuse("only masked_text and causal_text are trained by stages so far");
}

std::int64_t TextTransformerImpl::dropout_calls(std::int64_t layer) const {
  const std::int64_t rows = options_.dropout > 0 ? 1 : 0, weights = options_.attention_dropout > 0 ? 1 : 0;
  const std::int64_t noise = options_.router.noise > 0 ? 1 : 0;
  const auto mixtures =
      std::count_if(layers_.begin(), layers_.begin() + layer, [](const Layer& l) { return l.mixture >= 0; });
  // embeddings; per layer attention weights and both branches
  return rows + layer * (weights + 2 * rows) + mixtures * noise;
}

std::vector<Exhibit> TextTransformerImpl::exhibits(const std::vector<nn::NamedTensor>& statistics) const {
  if ((!options_.share_attention && !options_.share_mlp) || stages_) return {};  // norms are elsewhere too
  std::vector<std::int64_t> mixing;
  for (std::int64_t i = 0; i < options_.depth; ++i)
    if (layers_[static_cast<std::size_t>(i)].mixture >= 0) mixing.push_back(i);
  return shared_layer_exhibits(statistics, mixing, norm1, norm2);
}

}  // namespace stoa::text_transformer
