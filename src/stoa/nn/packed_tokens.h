#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "stoa/ops/attention.h"

namespace stoa::nn {

/// Reaches the tokens of the same sequences that other processes hold.
class TokenExchange {
 public:
  virtual ~TokenExchange() = default;
  /// Self-attention within the whole sequences: qkv [tokens, 3 dim] of this process's tokens -> [tokens,
  /// dim]. Every process calls it, and its backward.
  virtual at::Tensor attend(const at::Tensor& qkv, const ops::PackedAttentionOptions& options) const = 0;
  /// Whether the first token of every sequence is here.
  virtual bool has_first() const = 0;
  /// Sums over all processes.
  virtual at::Tensor sum(const at::Tensor& values) const = 0;
};

/// Sequences of several lengths laid end to end, without padding: what a text model computes on, so that
/// padding costs nothing and can change nothing.
struct PackedTokens {
  at::Tensor ids;        ///< [tokens] int64
  at::Tensor segments;   ///< [tokens] int64, which of two sentences; undefined for all 0
  at::Tensor positions;  ///< [tokens] int64 within the sequence, from 0
  at::Tensor offsets;    ///< [sequences + 1] int64, on the CPU: where each begins
  at::Tensor
      places;  ///< [tokens] int64, places in the flattened padded batch; undefined where it has no padding
  std::int64_t padded = 0;                        ///< length of the padded sequences
  std::int64_t longest = 0;                       ///< length of the longest sequence
  std::shared_ptr<const TokenExchange> exchange;  ///< null where all tokens are here

  std::int64_t sequences() const { return offsets.numel() - 1; }
  std::int64_t tokens() const { return ids.numel(); }
  /// A number for each token by its place in the whole step's batch (ops::BatchPart), for ops::dropout:
  /// [tokens] int64 on the CPU
  at::Tensor keys() const;
  /// Per-token values of the padded batch [sequences, padded, ...] -> [tokens, ...]
  at::Tensor pack(const at::Tensor& values) const;
  /// [tokens, ...] -> [sequences, padded, ...], `fill` in the padding
  at::Tensor unpack(const at::Tensor& values, double fill = 0) const;
  /// Rows of each sequence's first token: [tokens, dim] -> [sequences, dim]
  at::Tensor first(const at::Tensor& values) const;
  /// Means over each sequence: [tokens, dim] -> [sequences, dim]
  at::Tensor mean(const at::Tensor& values) const;
};

/// Packs a batch: ids and segments [sequences, padded], lengths [sequences]; undefined lengths say that
/// nothing is padding, undefined segments that all are 0. Throws ShapeError for lengths outside [1, padded].
PackedTokens pack_tokens(const at::Tensor& ids, const at::Tensor& lengths, const at::Tensor& segments = {});

}  // namespace stoa::nn
