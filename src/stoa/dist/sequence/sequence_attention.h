#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "stoa/dist/group.h"
#include "stoa/dist/sequence/token_order.h"
#include "stoa/ops/block_attention.h"

namespace stoa::dist {

/// How ranks that hold parts of a sequence attend to all of it. All give the same result.
enum class SequenceMethod {
  kRing,  ///< keys and values travel round the ranks, each block folded in as it comes (online softmax)
  kRsa,   ///< Ring Self-Attention as published (arXiv 2105.13120): two rings, scores of whole rows are kept
  kUlysses,  ///< every rank gets the whole sequence for some of the heads, and gives it back (all-to-all)
  kHybrid,   ///< that within `ulysses` consecutive ranks, a ring across
  kGatherKv  ///< every rank gets all keys and values
};

/// "ring", "rsa", "ulysses", "hybrid", "gather_kv".
const char* name_of(SequenceMethod method);

/// Seconds spent, added to over calls. The share of communication that is hidden behind arithmetic is 1 -
/// waited_s / (waited_s of the same calls with overlap = false).
struct SequenceTimings {
  double computed_s = 0;
  double waited_s = 0;  ///< for messages
};

struct SequenceAttentionOptions {
  SequenceMethod method = SequenceMethod::kRing;
  TokenOrder order = TokenOrder::kContiguous;  ///< in which the ranks hold the tokens
  bool causal = false;                         ///< a token sees itself and those before it
  int ulysses = 1;            ///< for kHybrid: ranks that share out heads; divides the group and the heads
  ops::BlockDropout dropout;  ///< first_batch, first_head: where these samples and heads begin in the whole
  at::Tensor documents;  ///< [batch, L] int64 of the whole sequence in its own order, equal on all ranks:
                         ///< only tokens of equal numbers see one another. May be undefined
  at::Tensor valid;      ///< [batch, L] bool, likewise: padding (false) is seen by none
  double scale = 0;      ///< of the scores; 0: 1 / sqrt(head_dim)
  bool all_reduce_sums =
      false;            ///< kRsa: gradients of keys and values summed as published, twice the traffic
  bool overlap = true;  ///< false: wait for each message before computing, to measure what it costs
  std::shared_ptr<SequenceTimings> timings;  ///< where to add, if anywhere
};

/// Attention of this rank's tokens to the whole sequence that the group's ranks hold: q [batch, C, heads,
/// head_dim], k and v [batch, C, kv_heads, head_dim], kv_heads a divisor of heads -> [batch, C, heads,
/// head_dim] of q's type; 0 for a token that sees nothing. Differentiable once; every rank of the group calls
/// it, and its backward, with the same options in the same order, and the group must outlive the backward.
/// Sums are of float, or double for double. Equal to one process but for rounding, and the same probabilities
/// are dropped. Throws ShapeError for tensors that do not fit, ConfigError for a length or heads that cannot
/// be split, DistributedError.
at::Tensor sequence_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, Group& group,
                              const SequenceAttentionOptions& options);

}  // namespace stoa::dist
