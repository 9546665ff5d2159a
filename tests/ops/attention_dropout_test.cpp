// Which probabilities attention drops follows from seed, sample, head, query and key alone: in every type, in
// blocks of the cache and in ATen's products, and however samples, heads and tokens are dealt out.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <array>
#include <cmath>
#include <limits>
#include <ostream>
#include <vector>

#include "stoa/base/random.h"
#include "stoa/ops/attention.h"
#include "stoa/ops/block_attention.h"
#include "stoa/ops/dropout.h"
#include "stoa/ops/gemm.h"

namespace stoa::ops {
namespace {

constexpr std::int64_t kHeads = 4, kLongest = 37, kFirst = 5;
constexpr std::uint64_t kStep = 17;
constexpr double kRate = 0.3;

/// The number of the first dropout call of the step.
std::int64_t call_number() {
  const BatchPartScope part({kFirst, kStep});
  return dropout_seed(kRate);
}

/// Queries, keys and values by heads, [tokens, 3, heads, kLongest] as one tensor of width 3 dim: the values
/// of a sequence are unit vectors, so that its probabilities come out.
at::Tensor revealing(const std::vector<std::int64_t>& lengths) {
  at::manual_seed(4);
  std::vector<at::Tensor> rows;
  for (const auto length : lengths) {
    const auto values = at::eye(kLongest).slice(0, 0, length).unsqueeze(1).expand({-1, kHeads, -1});
    rows.push_back(
        at::cat({at::randn({length, 2, kHeads, kLongest}) * 0.1, values.unsqueeze(1)}, 1).contiguous());
  }
  return at::cat(rows);
}

/// A part of the samples and of the heads, as processes have them.
struct Part {
  std::int64_t sample = 0, samples = 0, head = 0, heads = kHeads;
};

/// Which probabilities stay, [tokens, heads, kLongest].
at::Tensor kept(const std::vector<std::int64_t>& lengths, const Part& part, at::ScalarType type,
                bool causal) {
  const auto offsets = at::cat({at::zeros({1}, at::kLong), at::tensor(lengths, at::kLong).cumsum(0)});
  const auto begin = offsets[part.sample].item<std::int64_t>();
  const auto own = offsets.slice(0, part.sample, part.sample + part.samples + 1) - begin;
  const auto qkv = revealing(lengths)
                       .narrow(0, begin, own[-1].item<std::int64_t>())
                       .narrow(2, part.head, part.heads)
                       .flatten(1)
                       .to(type)
                       .contiguous();
  const BatchPartScope scope({kFirst + part.sample, kStep});
  return packed_attention(qkv, own.contiguous(), {part.heads, causal, kRate, part.head})
      .view({-1, part.heads, kLongest})
      .ne(0);
}

/// A type, and whether operators may work in blocks of the cache.
struct Way {
  at::ScalarType type;
  bool blocks;
};

void PrintTo(const Way& way, std::ostream* to) {
  *to << c10::toString(way.type) << (way.blocks ? " in blocks" : " by ATen");
}

class AttentionDropout : public testing::TestWithParam<Way> {
 protected:
  void SetUp() override { forbid_gemm_blocks(!GetParam().blocks); }
  void TearDown() override { forbid_gemm_blocks(false); }
  at::ScalarType type() const { return GetParam().type; }
};

const std::vector<std::int64_t> kUneven = {20, 37, 5}, kEven = {37, 37, 37};

/// What the numbers say, one by one.
at::Tensor by_definition(const std::vector<std::int64_t>& lengths, bool causal) {
  const auto call = static_cast<std::uint64_t>(call_number());
  std::vector<at::Tensor> rows;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const auto stays = at::zeros({lengths[i], kHeads, kLongest}, at::kBool);
    for (std::int64_t query = 0; query < lengths[i]; ++query)
      for (std::int64_t head = 0; head < kHeads; ++head)
        for (std::int64_t key = 0; key < (causal ? query + 1 : lengths[i]); ++key) {
          auto x = static_cast<std::uint32_t>(
                       mix_seed({call, static_cast<std::uint64_t>(kFirst) + i,
                                 static_cast<std::uint64_t>(head), static_cast<std::uint64_t>(query)})) +
                   static_cast<std::uint32_t>(key) * 0x9e3779b9U;
          x = (x ^ x >> 16) * 0x85ebca6bU;
          x = (x ^ x >> 13) * 0xc2b2ae35U;
          stays[query][head][key] = static_cast<double>((x ^ x >> 16) >> 8) < 0.7F * 16777216.0F;
        }
    rows.push_back(stays);
  }
  return at::cat(rows);
}

TEST_P(AttentionDropout, FollowsPlacesAlone) {
  for (const auto& lengths : {kUneven, kEven})
    for (const bool causal : {false, true}) {
      const auto found = kept(lengths, {.samples = 3}, type(), causal);
      EXPECT_TRUE(found.equal(by_definition(lengths, causal)));
    }
}

TEST_P(AttentionDropout, IsThatOfPackedSequencesWhereNoneIsPacked) {
  const auto qkv = revealing(kEven).flatten(1).to(type()).view({3, kLongest, -1});
  const BatchPartScope part({kFirst, kStep});
  const auto y = attention(qkv, kHeads, kRate).view({-1, kHeads, kLongest});
  EXPECT_TRUE(y.ne(0).equal(kept(kEven, {.samples = 3}, type(), false)));
}

TEST_P(AttentionDropout, IsTheSameHoweverSamplesAreDealtOut) {
  const auto whole = kept(kUneven, {.samples = 3}, type(), true);
  EXPECT_TRUE(at::cat({kept(kUneven, {.samples = 1}, type(), true),
                       kept(kUneven, {.sample = 1, .samples = 2}, type(), true)})
                  .equal(whole));
}

TEST_P(AttentionDropout, IsTheSameHoweverHeadsAreDealtOut) {
  const auto whole = kept(kUneven, {.samples = 3}, type(), false);
  const auto first = kept(kUneven, {.samples = 3, .heads = 2}, type(), false);
  const auto second = kept(kUneven, {.samples = 3, .head = 2, .heads = 2}, type(), false);
  EXPECT_TRUE(at::cat({first, second}, 1).equal(whole));
  // heads h and h + 2 of two processes
  for (std::int64_t head = 0; head < 2; ++head)
    EXPECT_FALSE(first.select(1, head).equal(second.select(1, head))) << "head " << head;
}

TEST_P(AttentionDropout, IsTheSameHoweverTokensAreDealtOut) {
  const auto whole = kept(kEven, {.samples = 3}, type(), true).view({3, kLongest, kHeads, kLongest});
  const auto parts = revealing(kEven).to(type()).view({3, kLongest, 3, kHeads, kLongest}).unbind(2);
  for (const auto& [query, queries, key, keys] :
       {std::array<std::int64_t, 4>{0, 19, 0, 19}, {19, 18, 0, 19}, {19, 18, 19, 18}}) {
    BlockAttentionOptions options;
    options.mask.causal = true;
    options.mask.query_positions = at::arange(query, query + queries, at::kLong);
    options.mask.key_positions = at::arange(key, key + keys, at::kLong);
    options.dropout = {kRate, call_number(), kFirst, 0};
    const auto block = block_attention(parts[0].narrow(1, query, queries), parts[1].narrow(1, key, keys),
                                       parts[2].narrow(1, key, keys), options);
    EXPECT_TRUE(
        block.out.ne(0).narrow(3, key, keys).equal(whole.narrow(1, query, queries).narrow(3, key, keys)));
  }
}

TEST_P(AttentionDropout, DoesNotDependOnTheNumberOfThreads) {
  const auto one = kept(kUneven, {.samples = 3}, type(), true);
  at::set_num_threads(3);
  const auto three = kept(kUneven, {.samples = 3}, type(), true);
  at::set_num_threads(1);
  EXPECT_TRUE(one.equal(three));
}

/// Values and gradients are those of the same probabilities without these, in double.
TEST_P(AttentionDropout, IsThatOfProbabilitiesOfWhichSomeAreZero) {
  const bool half = type() == at::kBFloat16 || type() == at::kHalf;
  const double tolerance = half ? 0.01 : type() == at::kDouble ? 1e-13 : 1e-5;
  for (const bool causal : {false, true}) {
    at::manual_seed(9);
    const auto drawn = at::randn({20 + 37 + 5, 3, kHeads, kLongest}).to(type());
    const auto grad = at::randn({20 + 37 + 5, kHeads * kLongest}).to(type());
    auto qkv = drawn.flatten(1).clone().requires_grad_();
    auto exact = drawn.to(at::kDouble).requires_grad_();
    const auto stays = kept(kUneven, {.samples = 3}, type(), causal);
    std::vector<at::Tensor> rows;
    for (std::int64_t i = 0, begin = 0; i < 3; begin += kUneven[static_cast<std::size_t>(i++)]) {
      const auto length = kUneven[static_cast<std::size_t>(i)];
      const auto parts = exact.narrow(0, begin, length).permute({1, 2, 0, 3});
      auto scores = parts[0].matmul(parts[1].transpose(1, 2)) / std::sqrt(double{kLongest});
      if (causal)
        scores = scores.masked_fill(at::ones({length, length}, at::kBool).triu(1),
                                    -std::numeric_limits<double>::infinity());
      const auto factors = stays.narrow(0, begin, length).narrow(2, 0, length).transpose(0, 1);
      const auto p = scores.softmax(-1) * factors.to(at::kDouble) / (1 - kRate);
      rows.push_back(p.matmul(parts[2]).transpose(0, 1).flatten(1));
    }
    const auto wanted = at::cat(rows);
    wanted.backward(grad.to(at::kDouble));
    const BatchPartScope part({kFirst, kStep});
    const auto y = packed_attention(qkv, at::tensor({0, 20, 57, 62}, at::kLong), {kHeads, causal, kRate});
    EXPECT_EQ(y.scalar_type(), type());
    y.backward(grad);
    for (const auto& [found, right] :
         {std::pair{y.detach(), wanted.detach()}, {qkv.grad(), exact.grad().flatten(1)}})
      EXPECT_LT((found.to(at::kDouble) - right).abs().max().item<double>() / right.abs().max().item<double>(),
                tolerance)
          << (causal ? "causal" : "all keys");
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, AttentionDropout,
                         testing::Values(Way{at::kFloat, true}, Way{at::kFloat, false},
                                         Way{at::kBFloat16, true}, Way{at::kBFloat16, false},
                                         Way{at::kHalf, true}, Way{at::kHalf, false}, Way{at::kDouble, true},
                                         Way{at::kDouble, false}));

TEST(AttentionDropoutDraws, NothingFromTheDefaultGeneratorWithinAStep) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    at::manual_seed(1);
    const auto next = at::rand({1});
    at::manual_seed(1);
    const BatchPartScope part({kFirst, kStep});
    attention(at::ones({1, 6, 12}, type), 2, kRate);
    EXPECT_TRUE(at::rand({1}).equal(next)) << c10::toString(type);
  }
}

}  // namespace
}  // namespace stoa::ops
