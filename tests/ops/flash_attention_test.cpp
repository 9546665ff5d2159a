// LibTorch's flash kernels as a form of block attention: masks in the pieces they know, and their twins of
// the CPU beside the reference.
#include "stoa/ops/flash_attention.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "ops/block_attention_cases.h"
#include "stoa/base/format.h"

namespace stoa::ops::test {
namespace {

using Tensors = std::vector<at::Tensor>;

std::optional<FlashCut> cut_of(const BlockMask& mask, std::int64_t queries, std::int64_t keys,
                               std::int64_t batch = 1) {
  return flash_cut(mask, BlockSight(mask, batch, queries, keys), batch, queries, keys);
}

at::Tensor range(std::int64_t first, std::int64_t end, std::int64_t step = 1) {
  return at::arange(first, end, step, at::kLong);
}

BlockMask causal(const at::Tensor& queries, const at::Tensor& keys) {
  BlockMask mask;
  mask.causal = true;
  mask.query_positions = queries;
  mask.key_positions = keys;
  return mask;
}

/// What a cut says that each query sees, [queries, keys].
at::Tensor seen_of(const FlashCut& cut, std::int64_t queries, std::int64_t keys) {
  auto seen = at::zeros({queries, keys}, at::kBool);
  const auto rows = seen.slice(0, cut.first_query);
  rows.slice(1, 0, cut.whole_keys).fill_(true);
  if (cut.square) {
    const std::int64_t size = queries - cut.first_query;
    rows.slice(1, cut.whole_keys, cut.whole_keys + size).copy_(at::ones({size, size}, at::kBool).tril());
  }
  return seen;
}

TEST(FlashCut, OfRingsBlocks) {
  EXPECT_EQ(cut_of({}, 5, 7), (FlashCut{0, 7, false}));
  BlockMask plain;
  plain.causal = true;
  EXPECT_EQ(cut_of(plain, 6, 6), (FlashCut{0, 0, true}));
  // contiguous: a block before, the own one, one behind
  EXPECT_EQ(cut_of(causal(range(8, 12), range(4, 8)), 4, 4), (FlashCut{0, 4, false}));
  EXPECT_EQ(cut_of(causal(range(8, 12), range(8, 12)), 4, 4), (FlashCut{0, 0, true}));
  EXPECT_EQ(cut_of(causal(range(8, 12), range(12, 16)), 4, 4), (FlashCut{4, 0, false}));
  // each half of the own block's queries, as a ring's backward pass meets them
  EXPECT_EQ(cut_of(causal(range(8, 10), range(8, 12)), 2, 4), (FlashCut{0, 0, true}));
  EXPECT_EQ(cut_of(causal(range(10, 12), range(8, 12)), 2, 4), (FlashCut{0, 2, true}));
  // striped, 4 ranks: the keys of a rank before, and of one behind
  EXPECT_EQ(cut_of(causal(range(2, 16, 4), range(1, 16, 4)), 4, 4), (FlashCut{0, 0, true}));
  EXPECT_EQ(cut_of(causal(range(2, 16, 4), range(3, 16, 4)), 4, 4), (FlashCut{1, 0, true}));
  // zigzag, 2 ranks of pieces of 3: rank 1 has the middle, rank 0 both ends
  const auto middle = range(3, 9), ends = at::cat({range(0, 3), range(9, 12)});
  EXPECT_EQ(cut_of(causal(middle, ends), 6, 6), (FlashCut{0, 3, false}));
  EXPECT_EQ(cut_of(causal(ends, middle), 6, 6), (FlashCut{3, 6, false}));
  EXPECT_EQ(cut_of(causal(ends, ends), 6, 6), (FlashCut{0, 0, true}));
}

TEST(FlashCut, IsNoneForOtherMasks) {
  EXPECT_FALSE(cut_of(causal(at::tensor({1, 0}, at::kLong), range(0, 2)), 2, 2));
  EXPECT_FALSE(cut_of(causal(range(0, 3), at::tensor({2, 1, 0}, at::kLong)), 3, 3));
  EXPECT_FALSE(cut_of(causal(range(0, 4, 2), range(0, 4)), 2, 4));  // the second query sees two keys more
  EXPECT_FALSE(cut_of({}, 0, 4));
  BlockMask documents;
  documents.query_documents = documents.key_documents = at::zeros({1, 4}, at::kLong);
  EXPECT_FALSE(cut_of(documents, 4, 4));
  BlockMask padding;
  padding.key_valid = at::ones({2, 4}, at::kBool);
  EXPECT_EQ(cut_of(padding, 4, 4, 2), (FlashCut{0, 4, false}));
  padding.key_valid.slice(1, 3).fill_(false);
  EXPECT_EQ(cut_of(padding, 4, 4, 2), (FlashCut{0, 3, false}));  // the same in all samples
  padding.key_valid[0][2] = false;
  EXPECT_FALSE(cut_of(padding, 4, 4, 2));
  padding.key_valid[1][2] = false;
  padding.key_valid[0][1] = padding.key_valid[1][1] = false;
  padding.key_valid.slice(1, 3).fill_(true);
  EXPECT_FALSE(cut_of(padding, 4, 4, 2));  // in the middle
}

/// Of random ascending positions each cut that is found says what the mask says.
TEST(FlashCut, SaysWhatTheMaskSays) {
  at::manual_seed(8);
  int found = 0, squares = 0;
  for (int trial = 0; trial < 4000; ++trial) {
    const auto draw = [&] {
      return std::get<0>(at::randperm(7, at::kLong).slice(0, 0, 1 + trial % 5).sort());
    };
    const auto queries = draw(), keys = draw();
    const auto cut = cut_of(causal(queries, keys), queries.numel(), keys.numel());
    if (!cut) continue;
    ++found;
    squares += cut->square;
    ASSERT_TRUE(seen_of(*cut, queries.numel(), keys.numel()).equal(keys.le(queries.unsqueeze(1))))
        << queries << keys;
  }
  EXPECT_GT(found, 1000);
  EXPECT_GT(squares, 200);
}

/// Some keys of a problem.
BlockAttentionOptions at_keys(BlockAttentionOptions options, std::int64_t first, std::int64_t end) {
  options.mask.key_positions = options.mask.key_positions.slice(0, first, end);
  return options;
}

/// Output, log_sum and gradients by flash kernels, of keys in blocks that end at these places.
Tensors by_flash(const Tensors& given, const BlockAttentionOptions& options,
                 const std::vector<std::int64_t>& ends) {
  const auto &q = given[0], &k = given[1], &v = given[2];
  auto state = no_attention(q);
  const BlockGradients into{at::zeros_like(state.out), at::zeros(k.sizes(), state.out.options()),
                            at::zeros(v.sizes(), state.out.options())};
  const auto each_block = [&](const auto& work) {
    for (std::size_t i = 0; i < ends.size(); ++i) {
      const std::int64_t first = i == 0 ? 0 : ends[i - 1], end = ends[i];
      const auto part = at_keys(options, first, end);
      const BlockSight sight(part.mask, q.size(0), q.size(1), end - first);
      const double scale = part.scale == 0 ? 1 / std::sqrt(static_cast<double>(q.size(3))) : part.scale;
      const BlockCall call{q, k.slice(1, first, end), v.slice(1, first, end), scale, {}, &sight, &part.mask};
      const auto cut = flash_cut(part.mask, sight, q.size(0), q.size(1), end - first);
      ASSERT_TRUE(cut) << first << " to " << end;
      work(call, *cut, first, end);
    }
  };
  each_block([&](const BlockCall& call, const FlashCut& cut, std::int64_t, std::int64_t) {
    update_by_flash(call, cut, state);
  });
  const BlockRows rows{state.log_sum, given[3], {}};
  each_block([&](const BlockCall& call, const FlashCut& cut, std::int64_t first, std::int64_t end) {
    backward_by_flash(call, cut, rows, state,
                      {into.q, into.k.slice(1, first, end), into.v.slice(1, first, end)});
  });
  return {state.out, state.log_sum, into.q, into.k, into.v};
}

/// The same by plain ATen calls in double.
Tensors by_reference(const Tensors& given, const BlockAttentionOptions& options) {
  Tensors leaves;
  for (int i = 0; i < 3; ++i)
    leaves.push_back(given[static_cast<std::size_t>(i)].to(at::kDouble).detach().requires_grad_());
  const auto block = block_attention_reference(leaves[0], leaves[1], leaves[2], options);
  block.out.backward(given[3].to(at::kDouble));
  return {block.out.detach(), block.log_sum.detach(), leaves[0].grad(), leaves[1].grad(), leaves[2].grad()};
}

struct FlashCase {
  std::string name;
  AttentionProblem problem;
  BlockMask mask;
  std::vector<std::int64_t> ends;  ///< of the blocks of keys
  double scale = 0;
};

void PrintTo(const FlashCase& c, std::ostream* to) {
  *to << c.name;
}

std::vector<FlashCase> cases() {
  const auto whole = [](std::int64_t queries, std::int64_t keys) {
    BlockMask mask;
    mask.query_positions = range(0, queries);
    mask.key_positions = range(0, keys);
    return mask;
  };
  return {
      {"whole", {2, 33, 70, 3, 3, 16, ""}, whole(33, 70), {70}},
      {"causal", {2, 70, 70, 3, 3, 16, ""}, causal(range(0, 70), range(0, 70)), {70}},
      {"grouped keys", {2, 40, 40, 6, 2, 8, ""}, causal(range(0, 40), range(0, 40)), {40}, 0.7},
      {"two blocks", {2, 33, 70, 3, 3, 16, ""}, whole(33, 70), {41, 70}},
      {"a causal ring of three, its last rank",
       {1, 20, 60, 2, 1, 24, ""},
       causal(range(40, 60), range(0, 60)),
       {20, 40, 60}},
      {"its middle one", {1, 20, 60, 2, 2, 24, ""}, causal(range(20, 40), range(0, 60)), {20, 40, 60}},
      {"half of the own block's queries",
       {2, 10, 40, 2, 2, 8, ""},
       causal(range(30, 40), range(0, 40)),
       {20, 40}},
      {"striped, the second of three",
       {2, 20, 60, 2, 2, 8, ""},
       causal(range(1, 60, 3), at::cat({range(0, 60, 3), range(1, 60, 3), range(2, 60, 3)})),
       {20, 40, 60}},
      {"zigzag, the first of two",
       {2, 20, 40, 2, 2, 8, ""},
       causal(at::cat({range(0, 10), range(30, 40)}), at::cat({range(0, 10), range(30, 40), range(10, 30)})),
       {20, 40}},
  };
}

class FlashTwin : public ::testing::TestWithParam<FlashCase> {};

TEST_P(FlashTwin, AgreesWithTheReference) {
  const auto& c = GetParam();
  for (const auto& [type, tolerance] :
       {std::pair{at::kDouble, 1e-12}, {at::kFloat, 2e-5}, {at::kBFloat16, 0.03}, {at::kHalf, 0.004}}) {
    const auto given = c.problem.tensors(type);
    BlockAttentionOptions options;
    options.mask = c.mask;
    options.scale = c.scale;
    expect_close(in_double(by_flash(given, options, c.ends)), by_reference(given, options), tolerance);
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Blocks, FlashTwin, ::testing::ValuesIn(cases()));

/// Rows of a product of queries, keys and values as one, at any place of a longer sequence.
TEST(FlashTwinOfViews, ReadsThemAsTheyLie) {
  at::manual_seed(3);
  const auto qkv = at::randn({2, 30, 3, 4, 16}, at::kDouble);
  const auto parts = qkv.slice(1, 5, 25).unbind(2);
  BlockAttentionOptions options;
  options.mask = causal(range(0, 20), range(0, 20));
  const Tensors given{parts[0], parts[1], parts[2], at::randn({2, 20, 4, 16}, at::kDouble)};
  expect_close(by_flash(given, options, {20}), by_reference(given, options), 1e-12);
}

/// LibTorch is asked, and its settings stay as they are.
TEST(FlashKernels, AreThereWhereLibTorchHasThem) {
  auto& context = at::globalContext();
  const auto q = at::zeros({2, 5, 3, 8}, at::kBFloat16);
  EXPECT_TRUE(has_flash_kernels(q));
  EXPECT_FALSE(has_flash_kernels(at::zeros({2, 5, 3, 8}, at::kInt)));
  context.setSDPUseFlash(false);
  context.setSDPUseMath(false);
  EXPECT_FALSE(has_flash_kernels(q));
  EXPECT_FALSE(context.userEnabledMathSDP());
  context.setSDPUseFlash(true);
  context.setSDPUseMath(true);
  EXPECT_TRUE(context.userEnabledMemEfficientSDP());
  EXPECT_TRUE(context.userEnabledCuDNNSDP());
}

TEST(FlashOnGpu, IsNotForTheCpu) {
  const AttentionProblem problem{1, 8, 8, 2, 2, 8, ""};
  const auto given = problem.tensors(at::kBFloat16);
  const BlockMask mask;
  const BlockSight sight(mask, 1, 8, 8);
  EXPECT_FALSE(flash_on_gpu({given[0], given[1], given[2], 1, {}, &sight, &mask}));
}

}  // namespace
}  // namespace stoa::ops::test
