#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "stoa/nn/linear.h"
#include "stoa/nn/packed_tokens.h"
#include "stoa/nn/parameters.h"
#include "stoa/nn/weight_split.h"

namespace stoa::nn {

/// How attention weights begin.
enum class AttentionInit {
  kGlorot,  ///< U(+-sqrt(6 / 2d)) for each of q, k, v, out
  kFused,   ///< q, k, v as one [d, 3d] matrix: U(+-sqrt(6 / 4d))
  kCode,    ///< three-axis kernels as Keras sees them: q, k, v U(+-sqrt(6 / (d (h + d/h)))), out U(+-sqrt(6 /
            ///< (d (1 + h))))
};

struct AttentionOptions {
  std::int64_t dim = 768;
  std::int64_t heads = 12;
  double dropout = 0;  ///< on the attention weights
  AttentionInit init = AttentionInit::kGlorot;
};

/// Keys and values of the tokens so far, of one layer, for sequences that are continued token by token.
struct AttentionCache {
  at::Tensor keys, values;  ///< [sequences, heads, capacity, dim / heads]
  std::int64_t used = 0;    ///< tokens in them
};

/// Multi-head self-attention with biases, scale 1 / sqrt(dim / heads) (widenet.md 2.1). Heads are contiguous
/// columns. Split weights are those of some of the heads.
class AttentionImpl : public torch::nn::Module, public HasSlices, public SplitsWeights {
 public:
  /// Throws ConfigError where heads does not divide dim.
  explicit AttentionImpl(const AttentionOptions& options);
  /// x [batch, tokens, dim] -> the same shape
  at::Tensor forward(const at::Tensor& x);
  /// Within sequences laid end to end (ops::packed_attention), of which other processes may have a part: x
  /// [tokens, dim] -> the same shape
  at::Tensor forward_packed(const at::Tensor& x, const PackedTokens& tokens, bool causal);
  /// Tokens that follow those of the cache, which takes them in: x [sequences, new tokens, dim] -> the same
  /// shape. Each sees the cache, itself and those before it. Throws ShapeError where the cache is too small.
  at::Tensor forward_cached(const at::Tensor& x, AttentionCache& cache);
  /// An empty cache for so many sequences and tokens.
  AttentionCache make_cache(std::int64_t sequences, std::int64_t capacity) const;
  std::map<std::string, std::int64_t> slices() const override { return {{"qkv_weight", 3}, {"qkv_bias", 3}}; }

  std::map<std::string, WeightCut> cuts() const override {
    return {{"qkv_weight", {0, 3}}, {"qkv_bias", {0, 3}}, {"out.weight", {1, 1}}};
  }
  void require_parts(std::int64_t parts) const override;
  void use_exchange(std::shared_ptr<const WeightExchange> exchange) override {
    exchange_ = std::move(exchange);
  }

  at::Tensor qkv_weight;  ///< [3 dim, dim]: q, k, v stacked
  at::Tensor qkv_bias;    ///< [3 dim]
  Linear out{nullptr};

 private:
  std::int64_t own_heads() const { return exchange_ ? options_.heads / exchange_->parts() : options_.heads; }
  std::int64_t first_head() const { return exchange_ ? exchange_->part() * own_heads() : 0; }
  double dropout() const { return is_training() ? options_.dropout : 0; }
  at::Tensor queries_keys_values(const at::Tensor& x) const;
  /// What the heads of all processes say, joined: mixed [..., own heads] -> [..., dim]
  at::Tensor join(const at::Tensor& mixed);

  AttentionOptions options_;
  std::shared_ptr<const WeightExchange> exchange_;  ///< null where all heads are here
};
TORCH_MODULE(Attention);

}  // namespace stoa::nn
