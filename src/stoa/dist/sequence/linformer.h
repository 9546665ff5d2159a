#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "stoa/dist/group.h"
#include "stoa/dist/sequence/split_tokens.h"
#include "stoa/dist/sequence/token_order.h"
#include "stoa/nn/packed_tokens.h"
#include "stoa/ops/block_attention.h"

namespace stoa::dist {

struct LinformerOptions {
  std::int64_t length = 0;  ///< L, for which E and F were made; 0 takes what the ranks hold
  TokenOrder order = TokenOrder::kContiguous;
  ops::BlockDropout dropout;  ///< by the query's place in the sequence and the row of E and F
  at::Tensor valid;  ///< [batch, L] bool of the whole sequence in its own order: padding (false) adds
                     ///< nothing to the projections. May be undefined
  double scale = 0;  ///< of the scores; 0: 1 / sqrt(head_dim)
};

/// Linformer attention (sequence-parallelism.md 2.6) of this rank's tokens to the whole sequence, by way of K
/// rows that E and F project keys and values to: q [batch, C, heads, head_dim], k and v [batch, C, kv_heads,
/// head_dim], e and f [K, C] this rank's columns of E and F -> [batch, C, heads, head_dim]. softmax(scale q
/// (E k)^T) (F v), E k and F v summed over the ranks: one all-reduce of both, and one of their gradients,
/// whatever the length. Differentiable once, by e and f too; every rank calls it. There is no causal form: a
/// row of E sees all tokens. Throws ShapeError, ConfigError for another length than E and F were made for,
/// DistributedError.
at::Tensor linformer_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const at::Tensor& e, const at::Tensor& f, Group& group,
                               const LinformerOptions& options = {});

/// Implemented by what split_tokens() gives as PackedTokens::exchange.
class SplitSequences {
 public:
  virtual ~SplitSequences() = default;
  virtual const SequenceSplit& split() const = 0;
  /// [sequences, L] bool of the whole batch, false for padding; undefined where there is none.
  virtual const at::Tensor& valid() const = 0;
};

/// The same tokens, whole or split over processes, attending by linformer_attention() through these E and F
/// [K, positions]. A token meets the column of its position: of a shorter sequence the columns beyond its end
/// add nothing. Throws ConfigError for sequences longer than E and F.
nn::PackedTokens with_linformer(const nn::PackedTokens& tokens, const at::Tensor& e, const at::Tensor& f);

}  // namespace stoa::dist
