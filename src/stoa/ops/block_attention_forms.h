#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "stoa/ops/block_attention.h"
#include "stoa/ops/block_sight.h"

// The two forms of block_attention.h's work on one block of keys. Internal to ops/.
namespace stoa::ops {

/// A checked call. The numbers of a head lie one beside the other.
struct BlockCall {
  at::Tensor q, k, v;
  double scale = 1;
  BlockDropout dropout;
  const BlockSight* sight = nullptr;
  const BlockMask* mask = nullptr;

  std::int64_t batch() const { return q.size(0); }
  std::int64_t queries() const { return q.size(1); }
  std::int64_t heads() const { return q.size(2); }
  std::int64_t head_dim() const { return q.size(3); }
  std::int64_t keys() const { return k.size(1); }
  std::int64_t kv_heads() const { return k.size(2); }
  std::int64_t group() const { return heads() / kv_heads(); }
};

/// What of a whole row the backward pass needs beside the call.
struct BlockRows {
  at::Tensor log_sum, grad_out, delta;
};

/// In fp32 on the CPU, by blocks in the cache. `fresh`: what `state` holds is not looked at.
void update_in_blocks(const BlockCall& call, const AttentionBlock& state, bool fresh);
void backward_in_blocks(const BlockCall& call, const BlockRows& rows, const BlockGradients& into);

/// By ATen's products, tile by tile, on any device, in float or double.
void update_by_tiles(const BlockCall& call, const AttentionBlock& state);
void backward_by_tiles(const BlockCall& call, const BlockRows& rows, const BlockGradients& into);

/// The seeds of a call's dropout [batch, heads, queries], int64 of 32 bits, on its device.
at::Tensor dropout_seeds(const BlockCall& call);

/// What probabilities of some queries and keys, seeds [..., queries] and key positions [keys] int64, are
/// multiplied by: 0 or 1 / (1 - rate).
at::Tensor dropout_factors(const at::Tensor& seeds, const at::Tensor& key_positions, double rate,
                           at::ScalarType type);

}  // namespace stoa::ops
