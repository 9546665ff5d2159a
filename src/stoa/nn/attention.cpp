#include "stoa/nn/attention.h"

#include <ATen/ATen.h>

#include <cmath>
#include <optional>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/init.h"
#include "stoa/ops/attention.h"
#include "stoa/ops/linear.h"

namespace stoa::nn {

AttentionImpl::AttentionImpl(const AttentionOptions& options) : options_(options) {
  const std::int64_t dim = options.dim, heads = options.heads;
  if (heads < 1 || dim % heads != 0)
    throw ConfigError(
        format("`heads` is {} but must divide `dim` = {}; choose a divisor of {}", heads, dim, dim));
  qkv_weight = register_parameter("qkv_weight", at::empty({3 * dim, dim}));
  qkv_bias = register_parameter("qkv_bias", at::empty({3 * dim}));
  out = register_module("out", Linear(dim, dim));

  constant_(qkv_bias, 0);
  const double d = static_cast<double>(dim), h = static_cast<double>(heads);
  switch (options.init) {
    case AttentionInit::kGlorot:
      glorot_uniform_(qkv_weight, d, d);
      break;
    case AttentionInit::kFused:
      glorot_uniform_(qkv_weight, d, 3 * d);
      break;
    case AttentionInit::kCode:
      glorot_uniform_(qkv_weight, d * h, d * d / h);
      glorot_uniform_(out->weight, d, d * h);
      break;
  }
}

void AttentionImpl::require_parts(std::int64_t parts) const {
  if (options_.heads % parts != 0)
    throw ConfigError(format("`parallel.tensor` is {}, which does not divide the {} heads of attention",
                             parts, options_.heads));
}

at::Tensor AttentionImpl::queries_keys_values(const at::Tensor& x) const {
  return ops::linear(exchange_ ? exchange_->spread(x) : x, qkv_weight, qkv_bias);
}

at::Tensor AttentionImpl::join(const at::Tensor& mixed) {
  if (!exchange_) return out->forward(mixed);
  return exchange_->sum(ops::linear(mixed, out->weight, {})) + out->bias;
}

at::Tensor AttentionImpl::forward(const at::Tensor& x) {
  return join(ops::attention(queries_keys_values(x), own_heads(), dropout(), first_head()));
}

at::Tensor AttentionImpl::forward_packed(const at::Tensor& x, const PackedTokens& tokens, bool causal) {
  const auto qkv = queries_keys_values(x);
  const ops::PackedAttentionOptions options{own_heads(), causal, dropout(), first_head()};
  return join(tokens.exchange ? tokens.exchange->attend(qkv, options)
                              : ops::packed_attention(qkv, tokens.offsets, options));
}

AttentionCache AttentionImpl::make_cache(std::int64_t sequences, std::int64_t capacity) const {
  const auto make = [&] {
    return at::empty({sequences, own_heads(), capacity, options_.dim / options_.heads}, qkv_weight.options());
  };
  return {make(), make(), 0};
}

at::Tensor AttentionImpl::forward_cached(const at::Tensor& x, AttentionCache& cache) {
  const std::int64_t sequences = x.size(0), count = x.size(1), before = cache.used, all = before + count;
  if (all > cache.keys.size(2))
    throw ShapeError(format("attention: {} tokens do not fit into a cache of {}", all, cache.keys.size(2)));
  const auto qkv = queries_keys_values(x)
                       .view({sequences, count, 3, own_heads(), options_.dim / options_.heads})
                       .permute({2, 0, 3, 1, 4});
  cache.keys.narrow(2, before, count).copy_(qkv[1]);
  cache.values.narrow(2, before, count).copy_(qkv[2]);
  cache.used = all;
  std::optional<at::Tensor> seen;
  if (before > 0 && count > 1) seen = at::ones({count, all}, x.options().dtype(at::kBool)).tril(before);
  const auto mixed =
      at::scaled_dot_product_attention(qkv[0], cache.keys.narrow(2, 0, all), cache.values.narrow(2, 0, all),
                                       seen, 0, /*is_causal=*/before == 0 && count > 1);
  return join(mixed.transpose(1, 2).reshape({sequences, count, -1}));
}

}  // namespace stoa::nn
