#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace stoa::ops {

/// Self-attention softmax(Q K^T / sqrt(dim / heads)) V by heads. qkv [batch, tokens, 3 dim] as one product
/// makes it (queries, keys, values, each by heads) -> [batch, tokens, dim]. Differentiable. In fp32 on the
/// CPU nothing of size [tokens, tokens] is kept, nothing copied to other layouts: every head reads and writes
/// its part of qkv and of its gradient where it lies; so it is in half precision, turned into fp32, where
/// there is `dropout` (of the probabilities, as below). Other types and devices take ATen's products; on a
/// GPU its generator draws. `first_head` is as below. Throws ShapeError for shapes that do not fit.
at::Tensor attention(const at::Tensor& qkv, std::int64_t heads, double dropout = 0,
                     std::int64_t first_head = 0);

/// The same of plain ATen calls, without dropout.
at::Tensor attention_reference(const at::Tensor& qkv, std::int64_t heads);

/// How the tokens of packed sequences see one another.
struct PackedAttentionOptions {
  std::int64_t heads = 1;
  bool causal = false;          ///< a token sees itself and those before it
  double dropout = 0;           ///< on the probabilities
  std::int64_t first_head = 0;  ///< of all heads, which other processes may have; names them for dropout
};

/// Attention within sequences of several lengths that lie end to end: qkv [tokens, 3 dim] -> [tokens, dim];
/// offsets [sequences + 1] int64 on the CPU say where each begins, from 0 to tokens, and none is empty. Else
/// as attention(): in fp32 on the CPU no padding is computed. Which probabilities are dropped depends on the
/// call's number (dropout_seed()) and on sequence, head, query and key alone, in every type on the CPU: not
/// on the number of threads, nor on how a batch is cut (BatchPart).
at::Tensor packed_attention(const at::Tensor& qkv, const at::Tensor& offsets,
                            const PackedAttentionOptions& options);

/// The same of plain ATen calls, sequence by sequence, without dropout.
at::Tensor packed_attention_reference(const at::Tensor& qkv, const at::Tensor& offsets,
                                      const PackedAttentionOptions& options);

}  // namespace stoa::ops
