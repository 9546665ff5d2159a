#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "stoa/base/errors.h"
#include "stoa/ops/attention.h"
#include "stoa/ops/simd.h"
#include "support/thrown.h"

namespace stoa::ops {
namespace {

using Lengths = std::vector<std::int64_t>;

at::Tensor offsets_of(const Lengths& lengths) {
  std::vector<std::int64_t> offsets = {0};
  for (const auto length : lengths) offsets.push_back(offsets.back() + length);
  return at::tensor(offsets, at::kLong);
}

struct Result {
  at::Tensor y, gradient;
};

template <class Form>
Result run(const Lengths& lengths, std::int64_t head_dim, at::ScalarType type,
           const PackedAttentionOptions& options, const Form& form) {
  torch::manual_seed(6);
  const auto offsets = offsets_of(lengths);
  const auto tokens = offsets[-1].item<std::int64_t>(), dim = options.heads * head_dim;
  auto qkv = (at::randn({tokens, 3 * dim}, at::kDouble) * 1.5).to(type).requires_grad_();
  const auto grad = at::randn({tokens, dim}, at::kDouble).to(type);
  const auto y = form(qkv, offsets, options);
  y.backward(grad);
  return {y.detach(), qkv.grad()};
}

void expect_near(const Result& found, const Result& wanted, double tolerance) {
  for (const auto& [a, b] : {std::pair{found.y, wanted.y}, {found.gradient, wanted.gradient}}) {
    ASSERT_EQ(a.sizes(), b.sizes());
    const double scale = std::max(1.0, b.abs().max().item<double>());
    EXPECT_LT((a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>() / scale, tolerance);
  }
}

struct Case {
  Lengths lengths;
  std::int64_t heads, head_dim;
  bool causal;
};

void PrintTo(const Case& c, std::ostream* to) {
  *to << c.lengths.size() << " sequences, " << c.heads << " heads of " << c.head_dim
      << (c.causal ? ", causal" : "");
}

class PackedAttention : public ::testing::TestWithParam<Case> {
 protected:
  Result result(at::ScalarType type, decltype(packed_attention)* form) const {
    const auto& c = GetParam();
    return run(c.lengths, c.head_dim, type, {c.heads, c.causal, 0}, form);
  }
};

TEST_P(PackedAttention, EqualsTheReferenceInSinglePrecision) {
  expect_near(result(at::kFloat, packed_attention), result(at::kDouble, packed_attention_reference), 5e-6);
}

TEST_P(PackedAttention, EqualsTheReferenceInDoublePrecision) {
  expect_near(result(at::kDouble, packed_attention), result(at::kDouble, packed_attention_reference), 1e-12);
}

TEST_P(PackedAttention, DoesNotDependOnTheNumberOfThreads) {
  const auto one = result(at::kFloat, packed_attention);
  at::set_num_threads(3);
  const auto three = result(at::kFloat, packed_attention);
  at::set_num_threads(1);
  EXPECT_TRUE(one.y.equal(three.y) && one.gradient.equal(three.gradient));
}

INSTANTIATE_TEST_SUITE_P(All, PackedAttention,
                         ::testing::Values(Case{{1}, 1, 4, false}, Case{{3, 1, 70}, 2, 8, false},
                                           Case{{5, 5}, 3, 7, false}, Case{{130, 2, 64, 65}, 2, 16, true},
                                           Case{{9, 9, 9}, 1, 5, true}, Case{{1500}, 1, 8, true}));

/// Probabilities after dropout [heads, queries, keys] of one sequence: what comes out where the values are
/// unit vectors.
at::Tensor dropped_probabilities(const at::Tensor& qk, std::int64_t tokens, std::int64_t heads,
                                 double dropout, bool causal) {
  auto qkv = at::cat({qk, at::eye(tokens).repeat({1, heads})}, 1);
  torch::manual_seed(3);
  const auto y = packed_attention(qkv, offsets_of({tokens}), {heads, causal, dropout});
  return y.view({tokens, heads, tokens}).transpose(0, 1);
}

class DroppedAttention : public ::testing::TestWithParam<bool> {};

TEST_P(DroppedAttention, IsThatOfProbabilitiesOfWhichSomeAreZero) {
  constexpr std::int64_t kTokens = 90, kHeads = 2;
  constexpr double kDropout = 0.3;
  torch::manual_seed(1);
  const auto qk = at::randn({kTokens, 2 * kHeads * kTokens}) * 0.3;
  const auto mask = dropped_probabilities(qk, kTokens, kHeads, kDropout, GetParam())
                        .div(dropped_probabilities(qk, kTokens, kHeads, 0, GetParam()).clamp_min(1e-30));
  const auto seen = GetParam() ? at::ones({kTokens, kTokens}).tril() : at::ones({kTokens, kTokens});
  const auto kept = mask.gt(0.5).to(at::kFloat);
  EXPECT_NEAR(kept.sum().item<double>() / (kHeads * seen.sum().item<double>()), 1 - kDropout, 0.02);
  EXPECT_LT((mask * seen - kept / (1 - kDropout)).abs().max().item<double>(), 1e-4);
  EXPECT_FALSE(kept[0].equal(kept[1])) << "heads drop alike";

  // the gradient is that of the same masked probabilities
  auto qkv = at::cat({qk, at::randn({kTokens, kHeads * kTokens})}, 1).requires_grad_();
  const auto grad = at::randn({kTokens, kHeads * kTokens});
  torch::manual_seed(3);
  packed_attention(qkv, offsets_of({kTokens}), {kHeads, GetParam(), kDropout}).backward(grad);
  auto copy = qkv.detach().to(at::kDouble).requires_grad_();
  const auto parts = copy.view({kTokens, 3, kHeads, kTokens}).permute({1, 2, 0, 3});
  const auto scores = parts[0].matmul(parts[1].transpose(1, 2)) / std::sqrt(double{kTokens});
  const auto p = scores.masked_fill(seen.eq(0), -std::numeric_limits<double>::infinity()).softmax(-1);
  const auto y = (p * kept.to(at::kDouble) / (1 - kDropout)).matmul(parts[2]);
  y.transpose(0, 1).reshape({kTokens, kHeads * kTokens}).backward(grad.to(at::kDouble));
  EXPECT_LT((qkv.grad() - copy.grad()).abs().max().item<double>() / copy.grad().abs().max().item<double>(),
            1e-5);
}

INSTANTIATE_TEST_SUITE_P(All, DroppedAttention, ::testing::Bool());

TEST(PackedAttentionDropout, FollowsTheSeedNotThreadsNorSimd) {
  const Lengths lengths = {40, 7, 23};
  const auto once = run(lengths, 16, at::kFloat, {2, true, 0.2}, packed_attention);
  at::set_num_threads(3);
  const auto again = run(lengths, 16, at::kFloat, {2, true, 0.2}, packed_attention);
  at::set_num_threads(1);
  EXPECT_TRUE(once.y.equal(again.y) && once.gradient.equal(again.gradient));
  for (const auto& level : simd_levels()) {
    limit_simd(level);
    expect_near(run(lengths, 16, at::kFloat, {2, true, 0.2}, packed_attention), once, 5e-6);
  }
  limit_simd("auto");
}

TEST(PackedAttentionCausal, WhatComesLaterChangesNothing) {
  auto qkv = at::randn({20, 24});
  const auto before = packed_attention(qkv, offsets_of({8, 12}), {2, true, 0});
  qkv.slice(0, 5, 8).normal_();
  const auto after = packed_attention(qkv, offsets_of({8, 12}), {2, true, 0});
  EXPECT_TRUE(before.slice(0, 0, 5).equal(after.slice(0, 0, 5)));
  EXPECT_FALSE(before.slice(0, 5, 8).equal(after.slice(0, 5, 8)));
  EXPECT_TRUE(before.slice(0, 8).equal(after.slice(0, 8)));
}

TEST(PackedAttentionRefuses, OffsetsThatDoNotFit) {
  const auto qkv = at::zeros({5, 12});
  for (const auto& wrong : {at::tensor({0, 4}, at::kLong), at::tensor({0, 3, 3, 5}, at::kLong),
                            at::tensor({1, 5}, at::kLong), at::tensor({0, 6, 5}, at::kLong)})
    STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([&] {
                           packed_attention(qkv, wrong, {2, false, 0});
                         }),
                         "must rise from 0 to the number of tokens, 5");
}

}  // namespace
}  // namespace stoa::ops
