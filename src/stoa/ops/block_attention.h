#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace stoa::ops {

/// Which keys of a block a query sees. Positions are places in the whole sequence, of which a block may hold
/// any part in any order.
struct BlockMask {
  bool causal = false;                        ///< keys whose position is not beyond its own
  at::Tensor query_positions, key_positions;  ///< [queries], [keys] int64 from 0; undefined: 0, 1, 2 ...
  at::Tensor query_documents;                 ///< [batch, queries] int64, with key_documents or not at all:
  at::Tensor key_documents;                   ///< [batch, keys]; only equal numbers see one another
  at::Tensor key_valid;                       ///< [batch, keys] bool; the others are padding, seen by none
};

/// Dropout of the probabilities. Which are dropped depends on the seed, on sample and head in the whole and
/// on the positions of query and key, so that a sequence, heads or a batch may be split anyhow.
struct BlockDropout {
  double rate = 0;
  std::int64_t seed = 0;
  std::int64_t first_batch = 0, first_head = 0;  ///< where this block's samples and heads begin in the whole
};

struct BlockAttentionOptions {
  BlockMask mask;
  BlockDropout dropout;
  double scale = 0;  ///< of the products of queries and keys; 0: 1 / sqrt(head_dim)
};

/// Attention to the keys seen so far. float; double where queries are.
struct AttentionBlock {
  at::Tensor out;      ///< [batch, queries, heads, head_dim]; 0 for a query that has seen nothing
  at::Tensor log_sum;  ///< [batch, heads, queries]: of the exponentials of the scores; -infinity for nothing
};

/// Where block_attention_backward() adds: of float, or double where queries are, the numbers of a head one
/// beside the other.
struct BlockGradients {
  at::Tensor q;     ///< [batch, queries, heads, head_dim]
  at::Tensor k, v;  ///< [batch, keys, kv_heads, head_dim]
};

/// Attention of queries [batch, queries, heads, head_dim] to one block of keys and values [batch, keys,
/// kv_heads, head_dim], kv_heads a divisor of heads: softmax(scale Q K^T) V by heads, with what is needed to
/// go on with more keys. Memory beside the result does not grow with queries or keys, and nothing depends on
/// the number of threads. In fp32 on the CPU q, k and v are read as they lie, whatever their strides, if only
/// the numbers of a head lie one beside the other; other types of the CPU are turned into float first;
/// double, other devices and CPUs without LibTorch's micro kernel take ATen's products tile by tile. Not
/// differentiable. Throws ShapeError for what does not fit.
AttentionBlock block_attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                       const BlockAttentionOptions& options = {});

/// Attention to no key: what a ring begins with.
AttentionBlock no_attention(const at::Tensor& q);

/// Folds one more block of keys into `state` in place (online softmax): after all blocks it is attention to
/// all their keys, in any order.
void block_attention_update(AttentionBlock& state, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const BlockAttentionOptions& options = {});

/// Folds attention of the same queries to other keys into `state` in place.
void merge_attention(AttentionBlock& state, const AttentionBlock& other);

/// The sum of grad_out * out over each head, [batch, heads, queries]: the same for all blocks of keys.
at::Tensor block_attention_delta(const at::Tensor& out, const at::Tensor& grad_out);

/// Adds one block's part of the gradients. `whole` is attention to the keys of all blocks, grad_out [batch,
/// queries, heads, head_dim] the gradient of its `out`, and delta block_attention_delta() of both; for the
/// gradient of its log_sum too (not of halves on a GPU), delta less that. Threads do not change it.
void block_attention_backward(const BlockGradients& into, const at::Tensor& q, const at::Tensor& k,
                              const at::Tensor& v, const AttentionBlock& whole, const at::Tensor& grad_out,
                              const at::Tensor& delta, const BlockAttentionOptions& options = {});

/// block_attention_forward() that is differentiable, by `out` and by `log_sum`; `out` is of the type of q.
AttentionBlock block_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const BlockAttentionOptions& options = {});

/// The same of plain differentiable ATen calls, which keeps scores of [batch, heads, queries, keys].
AttentionBlock block_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                         const BlockAttentionOptions& options = {});

}  // namespace stoa::ops
