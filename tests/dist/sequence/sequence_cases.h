#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "stoa/base/format.h"
#include "stoa/dist/sequence/sequence_attention.h"
#include "stoa/dist/world.h"

// What the tests of attention over several processes share.
namespace stoa::test {

using namespace stoa::dist;

/// Whole sequences, equal on all ranks.
struct Sequences {
  at::Tensor q, k, v, grad;

  Sequences(std::int64_t batch, std::int64_t length, std::int64_t heads, std::int64_t kv_heads,
            std::int64_t head_dim, at::ScalarType type = at::kDouble) {
    torch::manual_seed(41);
    const auto random = [&](std::int64_t count) {
      return at::randn({batch, length, count, head_dim}, at::kDouble).to(type);
    };
    q = random(heads);
    k = random(kv_heads);
    v = random(kv_heads);
    grad = random(heads);
  }
};

struct Outcome {
  at::Tensor out, q, k, v;  ///< and gradients, of whole sequences
};

/// Runs form(q, k, v), of which the result is like q, forward and backward.
template <class Form>
Outcome differentiated(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& grad,
                       const Form& form) {
  const auto leaf = [](const at::Tensor& x) { return x.detach().clone().requires_grad_(); };
  const auto a = leaf(q), b = leaf(k), c = leaf(v);
  const at::Tensor out = form(a, b, c);
  out.backward(grad);
  return {out.detach(), a.grad(), b.grad(), c.grad()};
}

/// In one process by plain ATen calls.
inline Outcome wanted(const Sequences& whole, const SequenceAttentionOptions& options) {
  ops::BlockAttentionOptions block;
  block.mask.causal = options.causal;
  block.mask.query_documents = block.mask.key_documents = options.documents;
  block.mask.key_valid = options.valid;
  block.dropout = options.dropout;
  block.scale = options.scale;
  return differentiated(whole.q, whole.k, whole.v, whole.grad,
                        [&](const auto& q, const auto& k, const auto& v) {
                          return ops::block_attention_reference(q, k, v, block).out;
                        });
}

/// By the ranks of the group, each with its part; put together again.
inline Outcome found(const Sequences& whole, Group& group, const SequenceAttentionOptions& options) {
  const auto chunk = [&](const at::Tensor& x) {
    return chunk_of(x, 1, options.order, group.size(), group.rank());
  };
  const auto own = differentiated(chunk(whole.q), chunk(whole.k), chunk(whole.v), chunk(whole.grad),
                                  [&](const auto& q, const auto& k, const auto& v) {
                                    return sequence_attention(q, k, v, group, options);
                                  });
  // in one message: heads of all four side by side
  const auto all = gather_tokens(at::cat({own.out, own.q, own.k, own.v}, 2), 1, options.order, group)
                       .split_with_sizes({own.out.size(2), own.q.size(2), own.k.size(2), own.v.size(2)}, 2);
  return {all[0], all[1], all[2], all[3]};
}

inline double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

/// Largest difference of any number; NaN is infinite.
inline double difference(const Outcome& a, const Outcome& b) {
  double most = 0;
  for (const auto& [x, y] : {std::pair{a.out, b.out}, {a.q, b.q}, {a.k, b.k}, {a.v, b.v}}) {
    const double d = difference(x, y);
    most = std::max(most, d == d ? d : HUGE_VAL);
  }
  return most;
}

/// The same, relative to the largest number of each tensor.
inline double relative_difference(const Outcome& a, const Outcome& b) {
  double most = 0;
  for (const auto& [x, y] : {std::pair{a.out, b.out}, {a.q, b.q}, {a.k, b.k}, {a.v, b.v}}) {
    const double d = difference(x, y) / y.abs().max().item<double>();
    most = std::max(most, d == d ? d : HUGE_VAL);
  }
  return most;
}

constexpr TokenOrder kOrders[] = {TokenOrder::kContiguous, TokenOrder::kZigzag, TokenOrder::kStriped};

/// Every method that so many ranks can use for so many heads, hybrids of every degree.
inline std::vector<SequenceAttentionOptions> every_method(int ranks, std::int64_t heads) {
  std::vector<SequenceAttentionOptions> all;
  const auto add = [&](SequenceMethod method, int ulysses = 1) {
    all.emplace_back();
    all.back().method = method;
    all.back().ulysses = ulysses;
  };
  add(SequenceMethod::kRing);
  add(SequenceMethod::kRsa);
  add(SequenceMethod::kGatherKv);
  if (heads % ranks == 0) add(SequenceMethod::kUlysses);
  for (int degree = 1; degree <= ranks; ++degree)
    if (ranks % degree == 0 && heads % degree == 0) add(SequenceMethod::kHybrid, degree);
  return all;
}

inline std::string text_of(const SequenceAttentionOptions& options) {
  return format("{} of {}, {} order{}{}{}, dropout {}", name_of(options.method), options.ulysses,
                name_of(options.order), options.causal ? ", causal" : "",
                options.documents.defined() ? ", documents" : "", options.valid.defined() ? ", padding" : "",
                options.dropout.rate);
}

/// Documents of unequal lengths, others in each sample.
inline at::Tensor some_documents(std::int64_t batch, std::int64_t length) {
  torch::manual_seed(42);
  return at::rand({batch, length}).lt(0.2).to(at::kLong).cumsum(1);
}

/// Padding at the end, of another length in each sample; the first has none.
inline at::Tensor some_padding(std::int64_t batch, std::int64_t length) {
  const auto lengths = length - at::arange(batch, at::kLong) * (length / 3 + 1);
  return at::arange(length, at::kLong).unsqueeze(0).lt(lengths.unsqueeze(1));
}

}  // namespace stoa::test
