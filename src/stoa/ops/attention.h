#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace stoa::ops {

/// Self-attention softmax(Q K^T / sqrt(dim / heads)) V by heads. qkv [batch, tokens, 3 dim] as one product
/// makes it (queries, keys, values, each by heads) -> [batch, tokens, dim]. Differentiable. In fp32 on the
/// CPU nothing of size [tokens, tokens] is kept and nothing is copied from or to other layouts: every head
/// reads and writes its part of qkv and of its gradient where it lies. `dropout` is applied to the
/// probabilities; with dropout, other types and other devices it is ATen's scaled_dot_product_attention.
/// Throws ShapeError for shapes that do not fit.
at::Tensor attention(const at::Tensor& qkv, std::int64_t heads, double dropout = 0);

/// The same of plain ATen calls, without dropout.
at::Tensor attention_reference(const at::Tensor& qkv, std::int64_t heads);

}  // namespace stoa::ops
