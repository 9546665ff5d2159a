#pragma once

#include <cstdint>

// Attention of one head of one sequence, in fp32 on the CPU; internal to attention.cpp. Single-threaded.
namespace stoa::ops {

/// One head of one sequence. Rows of qkv are 3 dim apart: q, and behind it k and v, dim apart; rows of the
/// output and of its gradient are dim apart.
struct HeadProblem {
  std::int64_t tokens = 0;
  std::int64_t dim = 0;       ///< of all heads
  std::int64_t head_dim = 0;  ///< of this one
  bool causal = false;
  float keep = 1;                        ///< share of the probabilities that stay
  std::uint64_t seed = 0;                ///< of the call's dropout
  std::uint64_t sequence = 0, head = 0;  ///< numbers of both in the whole, for dropout
};

/// out = P V with P = softmax(scale Q K^T), and log_sum [tokens] of the rows' exponentials.
void forward_head(const HeadProblem& problem, const float* q, float* out, float* log_sum);

/// This head's part of the gradient of qkv. Nothing of size [tokens, tokens] was kept: scores are made anew.
void backward_head(const HeadProblem& problem, const float* q, const float* out, const float* grad,
                   const float* log_sum, float* grad_q);

}  // namespace stoa::ops
