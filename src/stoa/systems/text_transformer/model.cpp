#include "stoa/systems/text_transformer/model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/dist/sequence/linformer.h"
#include "stoa/nn/init.h"
#include "stoa/nn/moe/statistics_row.h"
#include "stoa/nn/packed_tokens.h"
#include "stoa/nn/part_scope.h"
#include "stoa/nn/split_vocabulary.h"
#include "stoa/ops/dropout.h"
#include "stoa/ops/linear.h"
#include "stoa/ops/residual_norm.h"
#include "stoa/systems/shared_layers.h"

namespace stoa::text_transformer {
namespace {

torch::nn::LayerNorm layer_norm(std::int64_t dim, double eps) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim}).eps(eps));
}

at::Tensor normed(const at::Tensor& x, const torch::nn::LayerNormImpl& norm) {
  return ops::layer_norm(x, norm.weight, norm.bias, norm.options.eps());
}

}  // namespace

ProjectionsImpl::ProjectionsImpl(std::int64_t rows, std::int64_t positions, bool shared)
    : e(register_parameter("e", at::empty({rows, positions}))) {
  if (!shared) f = register_parameter("f", at::empty({rows, positions}));
}

void TextTransformerImpl::build() {
  const auto& o = options_;
  const std::int64_t width = o.embedding_width();
  if (o.vocabulary > 0) input_.vocabulary = o.vocabulary;
  word = register_parameter("word", at::empty({input_.vocabulary, width}));
  position = register_parameter("position", at::empty({o.positions, width}));
  if (o.segments > 0) segment = register_parameter("segment", at::empty({o.segments, width}));
  if (o.embedding_norm) embedding_norm = register_module("embedding_norm", layer_norm(width, o.norm_eps));
  if (width != o.dim) projection = register_module("projection", nn::Linear(width, o.dim));
  build_layers();
  if (o.norm == NormPlace::kPre) final_norm = register_module("final_norm", layer_norm(o.dim, o.norm_eps));
  build_heads();
}

TextTransformerImpl::TextTransformerImpl(const TextTransformerOptions& options, const TextModelInput& input)
    : options_(options), input_(input), own_{0, options.depth} {
  {
    const nn::SkipInitialisation drawn_below;  // by the rules of this model, not by those of its modules
    build();
  }
  draw();
}

void TextTransformerImpl::build_layers() {
  const auto& o = options_;
  register_module("attention", attention);
  register_module("projections", projections);
  register_module("mlp", mlp);
  register_module("mixture", mixture);
  register_module("norm1", norm1);
  register_module("norm2", norm2);
  const auto add = [](torch::nn::ModuleList& list, bool shared, const auto& make) {
    if (!shared || list->is_empty()) list->push_back(make());
    return static_cast<std::int64_t>(list->size()) - 1;
  };
  for (std::int64_t i = 0; i < o.depth; ++i) {
    Layer layer{-1, -1, -1, -1, -1};
    layer.attention = add(attention, o.share_attention, [&] {
      return nn::Attention(nn::AttentionOptions{o.dim, o.heads, o.attention_dropout});
    });
    if (o.linformer > 0)
      layer.projections =
          add(projections, o.share_attention || o.linformer_sharing == LinformerSharing::kLayers, [&] {
            return Projections(o.linformer, o.positions, o.linformer_sharing != LinformerSharing::kHeads);
          });
    if (o.has_mixture(i))
      layer.mixture = add(mixture, o.share_mlp, [&] {
        nn::MixtureOptions experts;
        experts.dim = o.dim;
        experts.hidden = o.expert_width();
        experts.activation = o.activation;
        experts.router = o.router;
        return nn::Mixture(experts);
      });
    else
      layer.mlp = add(mlp, o.share_mlp, [&] {
        return nn::Mlp(nn::MlpOptions{o.dim, o.mlp_dim, 0, o.activation});
      });
    add(norm1, o.share_norms, [&] { return layer_norm(o.dim, o.norm_eps); });
    layer.norm = add(norm2, o.share_norms, [&] { return layer_norm(o.dim, o.norm_eps); });
    layers_.push_back(layer);
  }
}

void TextTransformerImpl::build_heads() {
  const auto& o = options_;
  const auto head = input_.head;
  const bool pairs = head == TextHead::kMasked && input_.sentence_pairs;
  const bool classes = head == TextHead::kClasses, last = classes && o.causal(head);
  if (pairs || (classes && !last)) pooler = register_module("pooler", nn::Linear(o.dim, o.dim));
  if (head == TextHead::kMasked) {
    mask_dense = register_module("mask_dense", nn::Linear(o.dim, o.embedding_width()));
    mask_norm = register_module("mask_norm", layer_norm(o.embedding_width(), o.norm_eps));
    mask_bias = register_parameter("mask_bias", at::zeros({input_.vocabulary}));
  }
  if (pairs) pair_head = register_module("pair_head", nn::Linear(o.dim, 2));
  if (last)
    score = register_parameter("score", at::empty({input_.classes, o.dim}));
  else if (classes)
    class_head = register_module("class_head", nn::Linear(o.dim, input_.classes));
  if (head == TextHead::kSpans) span_head = register_module("span_head", nn::Linear(o.dim, 2));
}

/// Matrices from a normal distribution cut at two deviations, biases 0, norms the identity. Linformer's
/// projections, which add up as many numbers as there are positions, leave the size of keys as it is.
void TextTransformerImpl::draw() {
  const double std = options_.init_std;
  const double last = options_.scaled_init ? std / std::sqrt(2.0 * static_cast<double>(options_.depth)) : std;
  for (const auto& item : named_parameters()) {
    const auto& name = item.key();
    const bool ends_branch = name.ends_with(".out.weight") || name.ends_with(".w_out");
    if (name.ends_with("bias") || name.find(".b_") != std::string::npos)  // experts' are [experts, width]
      nn::constant_(item.value(), 0);
    else if (name.starts_with("projections."))
      nn::truncated_normal_(item.value(), 1 / std::sqrt(static_cast<double>(options_.positions)));
    else if (item.value().dim() >= 2)
      nn::truncated_normal_(item.value(), ends_branch ? last : std);
  }
}

at::Tensor TextTransformerImpl::drop(const at::Tensor& x, double rate, const at::Tensor& keys) const {
  return ops::dropout(x, is_training() ? rate : 0, keys);
}

at::Tensor TextTransformerImpl::embed(const at::Tensor& ids, const at::Tensor& segments,
                                      const at::Tensor& positions, const at::Tensor& keys) {
  const nn::PartScope part("embeddings");
  auto x =
      (exchange_ ? nn::split_embedding(word, ids, input_.vocabulary, *exchange_) : at::embedding(word, ids)) +
      at::embedding(position, positions);
  if (segment.defined()) x = x + (segments.defined() ? at::embedding(segment, segments) : segment[0]);
  if (embedding_norm) x = normed(x, *embedding_norm);
  x = drop(x, options_.dropout, keys);
  return projection ? projection->forward(x) : x;
}

const torch::nn::LayerNormImpl& TextTransformerImpl::norm_of(const torch::nn::ModuleList& norms,
                                                             std::int64_t layer) const {
  return *norms->ptr<torch::nn::LayerNormImpl>(
      static_cast<std::size_t>(layers_[static_cast<std::size_t>(layer)].norm));
}

nn::AttentionImpl& TextTransformerImpl::attention_of(std::int64_t layer) const {
  return *attention->ptr<nn::AttentionImpl>(
      static_cast<std::size_t>(layers_[static_cast<std::size_t>(layer)].attention));
}

nn::PackedTokens TextTransformerImpl::seen_by(std::int64_t layer, const nn::PackedTokens& tokens) const {
  const auto place = layers_[static_cast<std::size_t>(layer)].projections;
  if (place < 0) return tokens;
  const auto& own = *projections->ptr<ProjectionsImpl>(static_cast<std::size_t>(place));
  // processes that have some of the heads each find a part of the gradient
  const auto spread = [this](const at::Tensor& x) { return exchange_ ? exchange_->spread(x) : x; };
  const auto e = spread(own.e);
  return dist::with_linformer(tokens, e, own.f.defined() ? spread(own.f) : e);
}

nn::LayerPass TextTransformerImpl::begin(const at::Tensor& x, std::int64_t layer) const {
  if (options_.norm == NormPlace::kPost) return {x, x, {}};
  return {x, nn::in_part("layer norms", [&] { return normed(x, norm_of(norm1, layer)); }), {}};
}

nn::LayerPass TextTransformerImpl::pass_layer(std::int64_t i, const at::Tensor& x, const at::Tensor& input,
                                              const Attend& attend, const at::Tensor& keys) {
  const auto& layer = layers_[static_cast<std::size_t>(i)];
  const bool post = options_.norm == NormPlace::kPost, last = i + 1 == options_.depth;
  const auto add = [&](const at::Tensor& sum, const at::Tensor& branch,
                       const torch::nn::LayerNormImpl& norm) {
    const nn::PartScope part("layer norms");
    auto result = ops::residual_norm(sum, drop(branch, options_.dropout, keys), {}, norm.weight, norm.bias,
                                     options_.norm_eps);
    if (post) result.sum = result.normed;
    return result;
  };
  const auto mixed = nn::in_part("attention", [&] { return attend(i, input); });
  const auto middle = add(x, mixed, norm_of(post ? norm1 : norm2, i));
  nn::LayerPass passed;
  at::Tensor answer;
  if (layer.mixture >= 0) {
    const nn::PartScope part("experts");
    const bool flat = middle.normed.dim() == 2;  // packed: all sequences are one group
    auto result = mixture[layer.mixture]->as<nn::Mixture>()->forward(
        flat ? middle.normed.unsqueeze(0) : middle.normed, keys);
    answer = flat ? result.output.squeeze(0) : result.output;
    passed.routing = std::move(result.statistics);
  } else {
    const nn::PartScope part("perceptrons");
    answer = mlp[layer.mlp]->as<nn::Mlp>()->forward(middle.normed);
  }
  if (!post && !last && i + 1 == own_.end) {  // the next stage has the norm
    passed.x = passed.normed = middle.sum + drop(answer, options_.dropout, keys);
    return passed;
  }
  const auto after = add(middle.sum, answer,
                         post   ? norm_of(norm2, i)
                         : last ? *final_norm
                                : norm_of(norm1, i + 1));
  passed.x = after.sum;
  passed.normed = after.normed;
  return passed;
}

TextOutput TextTransformerImpl::forward(const nn::PackedTokens& tokens) {
  return forward(tokens, nullptr);
}

TextOutput TextTransformerImpl::forward(const nn::PackedTokens& tokens, std::vector<at::Tensor>* layers) {
  const bool causal = options_.causal(input_.head);
  const Attend attend = [this, tokens, causal](std::int64_t layer, const at::Tensor& x) {
    return attention_of(layer).forward_packed(x, seen_by(layer, tokens), causal);
  };
  const bool numbers = options_.dropout > 0 || !mixture->is_empty();  // drawn for every token
  const auto keys = is_training() && numbers ? tokens.keys() : at::Tensor();
  std::optional<ops::BatchPartScope> count;  // dropout counts as it would in one process
  if (own_.begin > 0) {
    auto part = ops::batch_part();
    part.calls += is_training() ? dropout_calls(own_.begin) : 0;
    count.emplace(part);
  }
  std::vector<nn::RoutingStatistics> calls;
  auto passed = begin(own_.begin == 0 ? embed(tokens.ids, tokens.segments, tokens.positions, keys)
                                      : receive(tokens.tokens(), calls),
                      own_.begin);
  if (layers != nullptr) layers->push_back(passed.x);
  const bool again = options_.recompute && is_training();
  for (std::int64_t i = own_.begin; i < own_.end; ++i) {
    const auto layer = [this, i, attend, keys](const at::Tensor& x, const at::Tensor& input) {
      return pass_layer(i, x, input, attend, keys);
    };
    passed = nn::run_layer(layer, passed.x, passed.normed, again, brought_, i);
    if (passed.routing) calls.push_back(std::move(*passed.routing));
    if (layers != nullptr) layers->push_back(i + 1 == options_.depth ? passed.normed : passed.x);
  }
  if (own_.end < options_.depth) return {{}, {}, send(passed.x, calls), stages_};
  TextOutput output{passed.normed, {}, {}, stages_};
  if (!calls.empty())
    output.side = nn::in_part("router", [&] { return nn::routing_outputs(calls, options_.router); });
  if (is_training() && options_.share_attention && norm1->size() > 1 && !stages_) {
    output.side.statistics.push_back({"norm1.spread", ln_spread(norm_weights(norm1))});
    output.side.statistics.push_back({"norm2.spread", ln_spread(norm_weights(norm2))});
  }
  return output;
}

at::Tensor TextTransformerImpl::receive(std::int64_t tokens,
                                        std::vector<nn::RoutingStatistics>& calls) const {
  const auto before = std::count_if(layers_.begin(), layers_.begin() + own_.begin,
                                    [](const Layer& layer) { return layer.mixture >= 0; });
  if (before == 0) return stages_->receive({tokens, options_.dim}, word.options());
  const auto size = tokens * options_.dim, more = before * nn::statistics_size(options_.router);
  const auto message = stages_->receive({size + more}, word.options());
  calls = nn::statistics_of(message.narrow(0, size, more), options_.router);
  return message.narrow(0, 0, size).view({tokens, options_.dim});
}

at::Tensor TextTransformerImpl::send(const at::Tensor& x,
                                     const std::vector<nn::RoutingStatistics>& calls) const {
  const auto type = word.scalar_type();
  if (calls.empty()) return stages_->send(x.to(type));
  return stages_->send(at::cat({x.to(type).flatten(), nn::statistics_row(calls, options_.router, type)}));
}

at::Tensor TextTransformerImpl::continued(const at::Tensor& ids, TextCache& cache) {
  const std::int64_t sequences = ids.size(0), count = ids.size(1);
  if (cache.layers.empty())
    for (std::int64_t i = 0; i < options_.depth; ++i)
      cache.layers.push_back(
          attention_of(i).make_cache(sequences, std::min(cache.capacity, options_.positions)));
  const Attend attend = [&](std::int64_t layer, const at::Tensor& x) {
    return attention_of(layer).forward_cached(x, cache.layers[static_cast<std::size_t>(layer)]);
  };
  const auto positions = at::arange(cache.tokens, cache.tokens + count, ids.options());
  auto passed = begin(embed(ids, {}, positions, {}), 0);
  for (std::int64_t i = 0; i < options_.depth; ++i) {
    const auto layer = [&, i](const at::Tensor& x, const at::Tensor& input) {
      return pass_layer(i, x, input, attend, {});
    };
    passed = nn::run_layer(layer, passed.x, passed.normed, /*again=*/false, brought_, i);
  }
  cache.tokens += count;
  return passed.normed.select(1, count - 1);
}

at::Tensor TextTransformerImpl::pooled(const at::Tensor& hidden, const nn::PackedTokens& tokens) {
  const nn::PartScope part("head");
  const auto first_tokens = tokens.first(hidden);
  if (options_.pooler == ops::Activation::kRelu)
    return ops::linear(first_tokens, pooler->weight, pooler->bias, ops::Activation::kRelu);
  return pooler->forward(first_tokens).tanh();
}

LanguageScores TextTransformerImpl::language_scores(const at::Tensor& rows) {
  const nn::PartScope part("head");
  if (input_.head == TextHead::kCausal) return {rows, word, {}, input_.vocabulary, exchange_};
  const auto dense = ops::linear(rows, mask_dense->weight, mask_dense->bias, options_.activation);
  return {normed(dense, *mask_norm), word, mask_bias, input_.vocabulary, exchange_};
}

std::map<std::string, nn::WeightCut> TextTransformerImpl::cuts() const {
  std::map<std::string, nn::WeightCut> cuts = {{"word", {}}};
  if (mask_bias.defined()) cuts.emplace("mask_bias", nn::WeightCut{});
  return cuts;
}

void TextTransformerImpl::require_parts(std::int64_t parts) const {
  if (nn::RowShare(input_.vocabulary, parts - 1, parts).count < 1)
    throw ConfigError(
        format("`parallel.tensor` is {}, too many parts for a vocabulary of {}", parts, input_.vocabulary));
}

at::Tensor TextTransformerImpl::pair_scores(const at::Tensor& hidden, const nn::PackedTokens& tokens) {
  return pair_head->forward(pooled(hidden, tokens));
}

at::Tensor TextTransformerImpl::class_scores(const at::Tensor& hidden, const nn::PackedTokens& tokens) {
  if (!score.defined()) return class_head->forward(drop(pooled(hidden, tokens), options_.classifier_dropout));
  const nn::PartScope part("head");
  const auto last = (tokens.offsets.slice(0, 1) - 1).to(hidden.device());
  return ops::linear(drop(hidden.index_select(0, last), options_.classifier_dropout), score, {});
}

at::Tensor TextTransformerImpl::span_scores(const at::Tensor& hidden) {
  return span_head->forward(hidden);
}

}  // namespace stoa::text_transformer
