#include "stoa/ops/block_attention.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <sstream>

#include "ops/block_attention_cases.h"
#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/ops/gemm.h"
#include "support/thrown.h"

namespace stoa::ops::test {
namespace {

class BlockAttention : public ::testing::TestWithParam<AttentionProblem> {};

TEST_P(BlockAttention, EqualsTheReferenceInDoublePrecision) {
  expect_close(GetParam().run(block_attention, at::kDouble),
               GetParam().run(block_attention_reference, at::kDouble), 1e-12);
}

TEST_P(BlockAttention, EqualsTheReferenceInSinglePrecision) {
  expect_close(in_double(GetParam().run(block_attention, at::kFloat)),
               GetParam().run(block_attention_reference, at::kDouble), 2e-5);
}

TEST_P(BlockAttention, EqualsTheReferenceByTilesInSinglePrecision) {
  forbid_gemm_blocks(true);
  const auto found = in_double(GetParam().run(block_attention, at::kFloat));
  forbid_gemm_blocks(false);
  expect_close(found, GetParam().run(block_attention_reference, at::kDouble), 2e-5);
}

INSTANTIATE_TEST_SUITE_P(
    All, BlockAttention,
    ::testing::Values(AttentionProblem{1, 1, 1, 1, 1, 1, ""}, AttentionProblem{2, 3, 17, 2, 2, 8, ""},
                      AttentionProblem{1, 65, 257, 2, 1, 64, ""}, AttentionProblem{1, 257, 65, 4, 2, 16, ""},
                      AttentionProblem{1, 17, 17, 1, 1, 5, "causal"},
                      AttentionProblem{2, 65, 65, 2, 1, 80, "causal"},
                      AttentionProblem{1, 257, 257, 2, 2, 32, "causal", 0.2},
                      AttentionProblem{2, 130, 300, 2, 1, 20, "causal shuffled", 0.3},
                      AttentionProblem{2, 130, 300, 2, 2, 7, "documents"},
                      AttentionProblem{3, 70, 150, 2, 1, 12, "padding", 0.1},
                      AttentionProblem{2, 257, 65, 6, 2, 16, "causal shuffled documents padding", 0.5},
                      AttentionProblem{1, 1100, 1300, 1, 1, 8, "causal"},
                      AttentionProblem{1, 130, 300, 2, 1, 64, "causal", 0.2, /*spread=*/3}));

TEST(BlockAttentionSimd, EveryLevelEqualsTheReference) {
  const AttentionProblem problem{1, 100, 330, 2, 1, 24, "causal shuffled padding", 0.2};
  const auto wanted = problem.run(block_attention_reference, at::kDouble);
  every_simd_level([&] { expect_close(in_double(problem.run(block_attention, at::kFloat)), wanted, 2e-5); });
}

TEST(BlockAttentionThreads, DoNotChangeABit) {
  for (const auto* mask : {"", "causal", "causal shuffled documents padding"}) {
    const AttentionProblem problem{2, 1100, 1300, 2, 1, 16, mask, 0.1};
    const auto one = on_threads(1, [&] { return problem.run(block_attention, at::kFloat); });
    for (const int threads : {2, 3, 5})
      expect_equal(on_threads(threads, [&] { return problem.run(block_attention, at::kFloat); }), one);
  }
}

TEST(BlockAttentionLayout, HeadsAreReadAndWrittenWhereTheyLie) {
  constexpr std::int64_t kTokens = 90, kHeads = 3, kDim = 16;
  at::manual_seed(2);
  const auto fused = at::randn({2, kTokens, 3, kHeads, kDim});
  const auto grad = at::randn({2, kTokens, kHeads, kDim});
  const auto part = [](const at::Tensor& x, int i) { return x.select(2, i); };
  const auto run = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const BlockGradients& into) {
    const auto block = block_attention_forward(q, k, v);
    block_attention_backward(into, q, k, v, block, grad, block_attention_delta(block.out, grad));
    return std::vector<at::Tensor>{block.out, block.log_sum, into.q, into.k, into.v};
  };
  const auto whole = at::zeros_like(fused);
  const auto zeros = [&] { return at::zeros({2, kTokens, kHeads, kDim}); };
  expect_equal(
      run(part(fused, 0), part(fused, 1), part(fused, 2), {part(whole, 0), part(whole, 1), part(whole, 2)}),
      run(part(fused, 0).contiguous(), part(fused, 1).contiguous(), part(fused, 2).contiguous(),
          {zeros(), zeros(), zeros()}));
}

TEST(BlockAttentionTypes, HalfPrecisionIsReadAsFloat) {
  const AttentionProblem problem{1, 40, 70, 2, 1, 16, "causal"};
  const auto given = problem.tensors(at::kBFloat16);
  const auto half = block_attention_forward(given[0], given[1], given[2], problem.options());
  const auto full = block_attention_forward(given[0].to(at::kFloat), given[1].to(at::kFloat),
                                            given[2].to(at::kFloat), problem.options());
  EXPECT_EQ(half.out.scalar_type(), at::kFloat);
  expect_equal({half.out, half.log_sum}, {full.out, full.log_sum});
  EXPECT_EQ(block_attention(given[0], given[1], given[2]).out.scalar_type(), at::kBFloat16);
}

// ---- properties

TEST(BlockAttentionProperty, OneKeyGivesItsValue) {
  const auto v = at::randn({2, 1, 3, 9});
  const auto block = block_attention_forward(at::randn({2, 5, 3, 9}), at::randn({2, 1, 3, 9}), v);
  expect_close({block.out}, {v.expand({2, 5, 3, 9})}, 1e-6);
}

TEST(BlockAttentionProperty, EqualKeysGiveTheMeanValue) {
  const auto k = at::randn({1, 1, 2, 8}).expand({1, 300, 2, 8});
  const auto v = at::randn({1, 300, 2, 8});
  const auto block = block_attention_forward(at::randn({1, 5, 2, 8}), k, v);
  expect_close({block.out}, {v.mean(1, true).expand({1, 5, 2, 8})}, 1e-6);
}

TEST(BlockAttentionProperty, HugeScoresStayFiniteAndTheLargestWins) {
  const auto q = at::ones({1, 2, 1, 1});
  const auto k = at::tensor({-1e4F, 1e4F, 0.0F}).view({1, 3, 1, 1});
  const auto v = at::tensor({1.0F, 2.0F, 3.0F}).view({1, 3, 1, 1});
  const auto block = block_attention_forward(q, k, v);
  expect_close({block.out, block.log_sum}, {at::full({1, 2, 1, 1}, 2.0F), at::full({1, 1, 2}, 1e4F)}, 1e-6);
  const BlockGradients into{at::zeros_like(q), at::zeros_like(k), at::zeros_like(v)};
  const auto grad = at::ones_like(q);
  block_attention_backward(into, q, k, v, block, grad, block_attention_delta(block.out, grad));
  for (const auto& x : {into.q, into.k, into.v}) EXPECT_TRUE(x.isfinite().all().item<bool>()) << x;
}

TEST(BlockAttentionProperty, AShiftOfAllKeysChangesNothing) {
  const AttentionProblem problem{2, 70, 140, 2, 1, 16, "causal shuffled"};
  for (const auto type : {at::kFloat, at::kDouble}) {
    const auto given = problem.tensors(type);
    const auto shift = at::randn({1, 1, 1, 16}, type);
    const auto out = [&](const at::Tensor& k) {
      return block_attention_forward(given[0], k, given[2], problem.options()).out;
    };
    expect_close({out(given[1] + shift)}, {out(given[1])}, type == at::kFloat ? 2e-5 : 1e-12);
  }
}

TEST(BlockAttentionProperty, GradientsOfValuesSumToThoseOfOutputs) {
  const AttentionProblem problem{2, 70, 140, 2, 2, 16, ""};
  for (const auto type : {at::kFloat, at::kDouble}) {
    const auto given = problem.tensors(type);
    const auto block = block_attention_forward(given[0], given[1], given[2]);
    const BlockGradients into{at::zeros_like(given[0]), at::zeros_like(given[1]), at::zeros_like(given[2])};
    block_attention_backward(into, given[0], given[1], given[2], block, given[3],
                             block_attention_delta(block.out, given[3]));
    expect_close({into.v.sum(1)}, {given[3].sum(1)}, type == at::kFloat ? 1e-5 : 1e-12);
  }
}

TEST(BlockAttentionProperty, WhatIsSeenByNobodyMayBeAnything) {
  AttentionProblem problem{1, 70, 140, 1, 1, 8, ""};
  auto given = problem.tensors(at::kFloat);
  BlockAttentionOptions options;
  options.mask.key_valid = at::arange(140).lt(100).unsqueeze(0);
  const auto before = block_attention_forward(given[0], given[1], given[2], options);
  given[1].slice(1, 100).fill_(1e30);
  given[2].slice(1, 100).fill_(-7);
  const auto after = block_attention_forward(given[0], given[1], given[2], options);
  expect_equal({after.out, after.log_sum}, {before.out, before.log_sum});
}

TEST(BlockAttentionProperty, NanIsNotHidden) {
  const AttentionProblem problem{1, 70, 140, 1, 1, 8, "causal"};
  auto given = problem.tensors(at::kFloat);
  given[1].select(1, 30).fill_(std::numeric_limits<double>::quiet_NaN());
  const auto block = block_attention_forward(given[0], given[1], given[2], problem.options());
  EXPECT_TRUE(block.out.slice(1, 0, 30).isfinite().all().item<bool>());
  EXPECT_TRUE(block.out.slice(1, 30).isnan().all().item<bool>());
  EXPECT_TRUE(block.log_sum.slice(2, 30).isnan().all().item<bool>());
}

// ---- memory

std::int64_t peak_memory() {
  std::istringstream status(read_file("/proc/self/status"));
  for (std::string word; status >> word;)
    if (word == "VmHWM:") {
      std::int64_t kilobytes = 0;
      status >> kilobytes;
      return kilobytes * 1024;
    }
  return 0;
}

TEST(BlockAttentionMemory, DoesNotGrowWithTheSquareOfTheSequence) {
  const auto rise = [](std::int64_t tokens) {
    const AttentionProblem problem{1, tokens, tokens, 1, 1, 4, "causal"};
    const auto before = peak_memory();
    problem.run(block_attention, at::kFloat);
    return peak_memory() - before;
  };
  rise(256);  // what is loaded and kept
  EXPECT_LT(rise(16384), 64 << 20) << "scores alone would be 1 GiB";
  forbid_gemm_blocks(true);
  EXPECT_LT(rise(6144), 64 << 20) << "scores alone would be 144 MiB";
  forbid_gemm_blocks(false);
}

// ---- refusals

TEST(BlockAttentionRefuses, WhatDoesNotFit) {
  const auto q = at::zeros({2, 4, 6, 8}), k = at::zeros({2, 5, 3, 8});
  const auto refused = [&](const at::Tensor& keys, const at::Tensor& values,
                           const BlockAttentionOptions& options) {
    return stoa::test::thrown<ShapeError>([&] { block_attention_forward(q, keys, values, options); });
  };
  STOA_EXPECT_CONTAINS(refused(at::zeros({2, 5, 3, 7}), k, {}), "block_attention: k has shape [2, 5, 3, 7]");
  STOA_EXPECT_CONTAINS(refused(k, at::zeros({2, 4, 3, 8}), {}), "block_attention: v has shape [2, 4, 3, 8]");
  const auto four = at::zeros({2, 5, 4, 8});
  STOA_EXPECT_CONTAINS(refused(four, four, {}), "6 heads of 8 and k has 4");
  STOA_EXPECT_CONTAINS(refused(k.to(at::kDouble), k, {}),
                       "one floating-point type and one device are needed");
  BlockAttentionOptions options;
  options.dropout.rate = 1;
  STOA_EXPECT_CONTAINS(refused(k, k, options), "dropout is 1; at least 0 and below 1 is needed");
  options = {};
  options.scale = std::numeric_limits<double>::quiet_NaN();
  STOA_EXPECT_CONTAINS(refused(k, k, options), "scale is nan");
}

TEST(BlockAttentionRefuses, MasksThatDoNotFit) {
  const auto q = at::zeros({2, 4, 1, 8}), k = at::zeros({2, 5, 1, 8});
  const auto refused = [&](const BlockMask& mask) {
    return stoa::test::thrown<ShapeError>([&] { block_attention_forward(q, k, k, {mask, {}, 0}); });
  };
  const auto numbers = [](at::IntArrayRef shape) { return at::zeros(shape, at::kLong); };
  STOA_EXPECT_CONTAINS(refused({true, numbers({5}), {}, {}, {}, {}}),
                       "query_positions has shape [5]; [4] is needed");
  STOA_EXPECT_CONTAINS(refused({true, {}, at::arange(5).sub(1), {}, {}, {}}), "key_positions hold -1; 0 to");
  STOA_EXPECT_CONTAINS(refused({true, {}, at::arange(5).add(1L << 31), {}, {}, {}}),
                       "key_positions hold 2147483648");
  STOA_EXPECT_CONTAINS(refused({true, {}, at::zeros({5}), {}, {}, {}}),
                       "key_positions are of type Float; int64");
  STOA_EXPECT_CONTAINS(refused({false, {}, {}, numbers({2, 4}), {}, {}}), "both or neither are needed");
  STOA_EXPECT_CONTAINS(refused({false, {}, {}, numbers({2, 4}), numbers({2, 4}), {}}),
                       "key_documents has shape");
  STOA_EXPECT_CONTAINS(refused({false, {}, {}, {}, {}, at::ones({2, 4}, at::kBool)}), "key_valid has shape");
  STOA_EXPECT_CONTAINS(refused({false, {}, {}, {}, {}, at::ones({2, 5})}),
                       "key_valid is of type Float; bool");
}

TEST(BlockAttentionRefuses, StatesAndGradientsThatDoNotFit) {
  const auto q = at::zeros({1, 4, 1, 8});
  auto state = no_attention(q);
  state.log_sum = at::zeros({1, 4});
  STOA_EXPECT_CONTAINS(stoa::test::thrown<ShapeError>([&] { block_attention_update(state, q, q, q); }),
                       "log_sum has shape [1, 4]");
  state = no_attention(q.to(at::kDouble));
  STOA_EXPECT_CONTAINS(stoa::test::thrown<ShapeError>([&] { block_attention_update(state, q, q, q); }),
                       "out is of type Double on cpu; Float on cpu is needed");
  const auto block = block_attention_forward(q, q, q);
  const auto delta = block_attention_delta(block.out, q);
  STOA_EXPECT_CONTAINS(stoa::test::thrown<ShapeError>([&] {
                         block_attention_backward({q, strided(q), q}, q, q, q, block, q, delta);
                       }),
                       "the gradient of k must lie one beside the other");
}

}  // namespace
}  // namespace stoa::ops::test
