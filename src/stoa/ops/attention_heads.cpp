#include "stoa/ops/attention_heads.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "stoa/base/random.h"
#include "stoa/ops/attention_kernels.h"
#include "stoa/ops/gemm.h"
#include "stoa/ops/gemm_kernels.h"

namespace stoa::ops {
namespace {

/// A right-hand side whose rows lie `stride` apart.
RightHandSide strided(const float* data, std::int64_t k, std::int64_t n, std::int64_t stride) {
  return {data, k, n, stride, kPanel};
}

template <class T>
T* sized(std::vector<T>& buffer, std::int64_t numbers) {
  if (std::ssize(buffer) < numbers) buffer.resize(static_cast<std::size_t>(numbers));
  return buffer.data();
}

/// Queries whose scores against all keys stay in the cache.
std::int64_t block_of(const HeadProblem& p) {
  return std::clamp<std::int64_t>(64 * 1024 / std::max<std::int64_t>(1, p.tokens) / 16 * 16, 16, 64);
}

float scale_of(const HeadProblem& p) {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(p.head_dim)));
}

/// Seeds of the dropout of `count` queries from `first` on.
const std::uint32_t* query_seeds(const HeadProblem& p, std::int64_t first, std::int64_t count,
                                 std::vector<std::uint32_t>& seeds) {
  std::uint32_t* const to = sized(seeds, count);
  for (std::int64_t i = 0; i < count; ++i)
    to[i] = static_cast<std::uint32_t>(
        mix_seed({p.seed, p.sequence, p.head, static_cast<std::uint64_t>(first + i)}));
  return to;
}

constexpr float kHidden = -std::numeric_limits<float>::infinity();

}  // namespace

void forward_head(const HeadProblem& p, const float* q, float* out, float* log_sum) {
  thread_local std::vector<float> turned_keys, scores;
  thread_local std::vector<std::uint32_t> seeds;
  const float* const k = q + p.dim;
  const float* const v = k + p.dim;
  const std::int64_t stride = 3 * p.dim, block = block_of(p);
  float* const kt = sized(turned_keys, p.head_dim * p.tokens);
  transpose_block(k, stride, p.tokens, p.head_dim, kt, p.tokens);
  for (std::int64_t first = 0; first < p.tokens; first += block) {
    const std::int64_t count = std::min(block, p.tokens - first);
    const std::int64_t keys = p.causal ? first + count : p.tokens;
    float* const s = sized(scores, count * keys);
    gemm_rows(q + first * stride, stride, count, strided(kt, p.head_dim, keys, p.tokens), s, keys, false);
    if (p.causal)
      for (std::int64_t i = 0; i < count; ++i)
        std::fill(s + i * keys + first + i + 1, s + (i + 1) * keys, kHidden);
    softmax_rows(s, scale_of(p), log_sum + first, count, keys);
    if (p.keep < 1) drop_rows(s, query_seeds(p, first, count, seeds), p.keep, count, keys);
    gemm_rows(s, keys, count, strided(v, keys, p.head_dim, stride), out + first * p.dim, p.dim, false);
  }
}

// Scores are made a column a query, so that the probabilities are what the products for keys and values need
// on their left.
void backward_head(const HeadProblem& p, const float* q, const float* out, const float* grad,
                   const float* log_sum, float* grad_q) {
  thread_local std::vector<float> turned, scores, gradients, dots;
  thread_local std::vector<std::uint32_t> seeds;
  const float* const k = q + p.dim;
  const float* const v = k + p.dim;
  float* const grad_k = grad_q + p.dim;
  float* const grad_v = grad_k + p.dim;
  const std::int64_t stride = 3 * p.dim, block = block_of(p);
  float* const dot = sized(dots, p.tokens);
  dot_rows(out, p.dim, grad, p.dim, p.tokens, p.head_dim, dot);
  // keys that the first blocks do not see yet have a gradient that begins with 0
  if (p.causal)
    for (std::int64_t i = 0; i < p.tokens; ++i) {
      std::fill_n(grad_k + i * stride, p.head_dim, 0.0F);
      std::fill_n(grad_v + i * stride, p.head_dim, 0.0F);
    }
  for (std::int64_t first = 0; first < p.tokens; first += block) {
    const std::int64_t count = std::min(block, p.tokens - first);
    const std::int64_t keys = p.causal ? first + count : p.tokens;
    const float* const qi = q + first * stride;
    const float* const gi = grad + first * p.dim;
    float* const s = sized(scores, count * keys);
    float* const g = sized(gradients, count * keys);
    float* const t = sized(turned, count * std::max(keys, p.head_dim));
    transpose_block(qi, stride, count, p.head_dim, t, count);
    gemm_rows(k, stride, keys, strided(t, p.head_dim, count, count), s, count, false);
    transpose_block(gi, p.dim, count, p.head_dim, t, count);
    gemm_rows(v, stride, keys, strided(t, p.head_dim, count, count), g, count, false);
    if (p.causal)
      for (std::int64_t i = 1; i < count; ++i) std::fill_n(s + (first + i) * count, i, kHidden);
    if (p.keep < 1)
      softmax_dropout_backward_columns(s, g, log_sum + first, dot + first,
                                       query_seeds(p, first, count, seeds), p.keep, scale_of(p), keys, count);
    else
      softmax_backward_columns(s, g, log_sum + first, dot + first, scale_of(p), keys, count);
    const bool add = p.causal || first > 0;
    gemm_rows(s, count, keys, strided(gi, count, p.head_dim, p.dim), grad_v, stride, add);
    gemm_rows(g, count, keys, strided(qi, count, p.head_dim, stride), grad_k, stride, add);
    transpose_block(g, count, keys, count, t, keys);
    gemm_rows(t, keys, count, strided(k, keys, p.head_dim, stride), grad_q + first * stride, stride, false);
  }
}

}  // namespace stoa::ops
