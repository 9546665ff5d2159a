// Attention that is cut anyhow, by keys, queries, samples or heads, is the whole one; tiles in which nothing
// is seen are left out.
#include <gtest/gtest.h>

#include <functional>

#include "ops/block_attention_cases.h"
#include "stoa/ops/block_attention.h"
#include "stoa/ops/block_sight.h"

namespace stoa::ops::test {
namespace {

using Tensors = std::vector<at::Tensor>;
using Sizes = std::vector<std::int64_t>;

double tolerance(at::ScalarType type) {
  return type == at::kFloat ? 2e-5 : 1e-12;
}

/// A part of the keys with what of the mask belongs to it.
BlockAttentionOptions of_keys(BlockAttentionOptions options, std::int64_t first, std::int64_t end) {
  auto& mask = options.mask;
  mask.key_positions = mask.key_positions.defined() ? mask.key_positions.slice(0, first, end)
                                                    : at::arange(first, end, at::kLong);
  if (mask.key_documents.defined()) mask.key_documents = mask.key_documents.slice(1, first, end);
  if (mask.key_valid.defined()) mask.key_valid = mask.key_valid.slice(1, first, end);
  return options;
}

BlockAttentionOptions of_queries(BlockAttentionOptions options, std::int64_t first, std::int64_t end) {
  auto& mask = options.mask;
  mask.query_positions = mask.query_positions.defined() ? mask.query_positions.slice(0, first, end)
                                                        : at::arange(first, end, at::kLong);
  if (mask.query_documents.defined()) mask.query_documents = mask.query_documents.slice(1, first, end);
  return options;
}

/// Calls work(first, end) for parts of these sizes, in the order of their starts, or the last first.
void for_each_part(const Sizes& sizes, bool backwards,
                   const std::function<void(std::int64_t, std::int64_t)>& work) {
  std::vector<std::pair<std::int64_t, std::int64_t>> parts;
  for (const auto size : sizes) {
    const std::int64_t first = parts.empty() ? 0 : parts.back().second;
    parts.emplace_back(first, first + size);
  }
  if (backwards) std::reverse(parts.begin(), parts.end());
  for (const auto& [first, end] : parts) work(first, end);
}

Tensors whole(const AttentionProblem& problem, at::ScalarType type) {
  const auto given = problem.tensors(type);
  const auto options = problem.options();
  const auto block = block_attention_forward(given[0], given[1], given[2], options);
  const BlockGradients into{at::zeros_like(given[0]), at::zeros_like(given[1]), at::zeros_like(given[2])};
  block_attention_backward(into, given[0], given[1], given[2], block, given[3],
                           block_attention_delta(block.out, given[3]), options);
  return {block.out, block.log_sum, into.q, into.k, into.v};
}

/// The same, keys and queries in parts.
Tensors in_parts(const AttentionProblem& problem, at::ScalarType type, const Sizes& query_sizes,
                 const Sizes& key_sizes, bool backwards) {
  const auto given = problem.tensors(type);
  const auto options = problem.options();
  auto state = no_attention(given[0]);
  for_each_part(query_sizes, backwards, [&](std::int64_t query, std::int64_t query_end) {
    const auto q = given[0].slice(1, query, query_end);
    auto block = no_attention(q);
    for_each_part(key_sizes, backwards, [&](std::int64_t key, std::int64_t key_end) {
      block_attention_update(block, q, given[1].slice(1, key, key_end), given[2].slice(1, key, key_end),
                             of_keys(of_queries(options, query, query_end), key, key_end));
    });
    state.out.slice(1, query, query_end).copy_(block.out);
    state.log_sum.slice(2, query, query_end).copy_(block.log_sum);
  });
  const BlockGradients into{at::zeros_like(given[0]), at::zeros_like(given[1]), at::zeros_like(given[2])};
  const auto delta = block_attention_delta(state.out, given[3]);
  for_each_part(query_sizes, backwards, [&](std::int64_t query, std::int64_t query_end) {
    const auto rows = [&](const at::Tensor& x) { return x.slice(1, query, query_end); };
    const auto of_rows = [&](const at::Tensor& x) { return x.slice(2, query, query_end).contiguous(); };
    for_each_part(key_sizes, backwards, [&](std::int64_t key, std::int64_t key_end) {
      const auto part = [&](const at::Tensor& x) { return x.slice(1, key, key_end); };
      block_attention_backward({rows(into.q), part(into.k), part(into.v)}, rows(given[0]), part(given[1]),
                               part(given[2]), {rows(state.out), of_rows(state.log_sum)}, rows(given[3]),
                               of_rows(delta), of_keys(of_queries(options, query, query_end), key, key_end));
    });
  });
  return {state.out, state.log_sum, into.q, into.k, into.v};
}

class BlockAttentionSplit : public ::testing::TestWithParam<AttentionProblem> {};

TEST_P(BlockAttentionSplit, ByKeysAndQueriesIsTheWhole) {
  const auto& p = GetParam();
  for (const auto type : {at::kFloat, at::kDouble}) {
    const auto wanted = whole(p, type);
    for (const bool backwards : {false, true}) {
      expect_close(in_parts(p, type, {p.queries}, {1, p.keys - 1}, backwards), wanted, tolerance(type));
      expect_close(in_parts(p, type, {65, 3, p.queries - 68}, {70, 17, p.keys - 87}, backwards), wanted,
                   tolerance(type));
    }
  }
}

TEST_P(BlockAttentionSplit, BySamplesAndHeadsIsTheWhole) {
  const auto& p = GetParam();
  const auto given = p.tensors(at::kFloat);
  const auto options = p.options();
  const auto all = block_attention_forward(given[0], given[1], given[2], options);
  const std::int64_t group = p.heads / p.kv_heads;
  for (std::int64_t sample = 0; sample < p.batch; ++sample)
    for (std::int64_t kv_head = 0; kv_head < p.kv_heads; ++kv_head) {
      const auto own = [&](const at::Tensor& x) { return x.defined() ? x.slice(0, sample, sample + 1) : x; };
      const auto head = [&](const at::Tensor& x, std::int64_t count, int dim) {
        return own(x).slice(dim, kv_head * count, (kv_head + 1) * count);
      };
      auto part = options;
      auto& mask = part.mask;
      mask.query_documents = own(mask.query_documents);
      mask.key_documents = own(mask.key_documents);
      mask.key_valid = own(mask.key_valid);
      part.dropout.first_batch += sample;
      part.dropout.first_head += kv_head * group;
      const auto found =
          block_attention_forward(head(given[0], group, 2), head(given[1], 1, 2), head(given[2], 1, 2), part);
      expect_equal({found.out, found.log_sum}, {head(all.out, group, 2), head(all.log_sum, group, 1)});
    }
}

INSTANTIATE_TEST_SUITE_P(
    All, BlockAttentionSplit,
    ::testing::Values(AttentionProblem{2, 130, 200, 4, 2, 16, ""},
                      AttentionProblem{2, 130, 200, 2, 1, 16, "causal"},
                      AttentionProblem{2, 130, 200, 4, 2, 9, "causal shuffled documents padding"},
                      AttentionProblem{2, 130, 200, 4, 2, 16, "causal shuffled", 0.3},
                      AttentionProblem{2, 130, 200, 2, 1, 64, "causal", 0, /*spread=*/3}));

// ---- merging

TEST(MergeAttention, IsAttentionToAllKeys) {
  const AttentionProblem problem{2, 70, 200, 2, 1, 16, "causal shuffled documents"};
  for (const auto type : {at::kFloat, at::kDouble}) {
    const auto given = problem.tensors(type);
    const auto options = problem.options();
    auto state = no_attention(given[0]);
    for_each_part({40, 1, 159}, true, [&](std::int64_t key, std::int64_t end) {
      merge_attention(
          state, block_attention_forward(given[0], given[1].slice(1, key, end), given[2].slice(1, key, end),
                                         of_keys(options, key, end)));
    });
    const auto all = block_attention_forward(given[0], given[1], given[2], options);
    expect_close({state.out, state.log_sum}, {all.out, all.log_sum}, tolerance(type));
  }
}

/// Attention of one query to one key with this score and value; to none for -infinity.
AttentionBlock one_key(double score, double value, at::ScalarType type) {
  return {at::full({1, 1, 1, 1}, std::isinf(score) ? 0 : value, type), at::full({1, 1, 1}, score, type)};
}

TEST(MergeAttention, BearsAnyDifferenceAndNothing) {
  constexpr double kNothing = -std::numeric_limits<double>::infinity();
  struct Case {
    double first, second, out, log_sum;
  };
  for (const auto type : {at::kFloat, at::kDouble})
    for (const auto& c : {Case{0, 1e4, 7, 1e4},
                          {1e4, 0, 3, 1e4},
                          {-1e4, 0, 7, 0},
                          {0, -1e4, 3, 0},
                          {kNothing, 5, 7, 5},
                          {5, kNothing, 3, 5},
                          {kNothing, kNothing, 0, kNothing},
                          {2, 2, 5, 2 + std::log(2)}}) {
      auto merged = one_key(c.first, 3, type);
      merge_attention(merged, one_key(c.second, 7, type));
      expect_close(in_double({merged.out, merged.log_sum}),
                   {at::full({1, 1, 1, 1}, c.out, at::kDouble), at::full({1, 1, 1}, c.log_sum, at::kDouble)},
                   1e-6);
      // the same by a second key whose product with the query is that score
      if (std::isinf(c.second)) continue;
      auto updated = one_key(c.first, 3, type);
      const auto one = at::ones({1, 1, 1, 1}, type);
      block_attention_update(updated, one, one * c.second, one * 7);
      expect_close(in_double({updated.out, updated.log_sum}), in_double({merged.out, merged.log_sum}), 2e-6);
    }
}

TEST(BlockAttentionUpdate, BlocksInWhichNothingIsSeenChangeNothing) {
  const AttentionProblem problem{1, 70, 64, 1, 1, 8, ""};
  for (const auto type : {at::kFloat, at::kDouble}) {
    const auto given = problem.tensors(type);
    BlockAttentionOptions hidden;
    hidden.mask.key_valid = at::zeros({1, 64}, at::kBool);
    auto state = no_attention(given[0]);
    block_attention_update(state, given[0], given[1], given[2], hidden);
    const auto nothing = no_attention(given[0]);
    expect_equal({state.out, state.log_sum}, {nothing.out, nothing.log_sum});
    block_attention_update(state, given[0], given[1], given[2]);
    const auto seen = block_attention_forward(given[0], given[1], given[2]);
    expect_close({state.out, state.log_sum}, {seen.out, seen.log_sum}, tolerance(type));
    const auto before = state.out.clone();
    block_attention_update(state, given[0], given[1], given[2], hidden);
    expect_close({state.out}, {before}, 1e-6);
  }
}

// Scores that are small enough are exponentiated without a look for the largest; here small and large ones
// meet.
TEST(BlockAttentionUpdate, BearsBlocksOfSmallAndOfLargeScores) {
  AttentionProblem problem{1, 70, 200, 1, 1, 64, ""};
  for (const auto type : {at::kFloat, at::kDouble}) {
    auto given = problem.tensors(type);
    given[1].slice(1, 40, 100).mul_(5);
    given[0].slice(1, 0, 20).mul_(0.1);
    const auto wanted = block_attention_reference(given[0].to(at::kDouble), given[1].to(at::kDouble),
                                                  given[2].to(at::kDouble));
    for (const bool backwards : {false, true}) {
      auto state = no_attention(given[0]);
      for_each_part({40, 60, 100}, backwards, [&](std::int64_t key, std::int64_t end) {
        block_attention_update(state, given[0], given[1].slice(1, key, end), given[2].slice(1, key, end));
      });
      expect_close(in_double({state.out, state.log_sum}), {wanted.out, wanted.log_sum},
                   type == at::kFloat ? 5e-5 : 1e-12);
    }
  }
}

// ---- orders of a ring

/// Positions of the tokens in ring order: rank r's are [r * tokens / ranks, (r + 1) * tokens / ranks).
at::Tensor zigzag(std::int64_t tokens, std::int64_t ranks) {
  const auto chunks = at::arange(tokens, at::kLong).chunk(2 * ranks);
  Tensors order;
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    order.push_back(chunks[static_cast<std::size_t>(rank)]);
    order.push_back(chunks[static_cast<std::size_t>(2 * ranks - 1 - rank)]);
  }
  return at::cat(order);
}

at::Tensor striped(std::int64_t tokens, std::int64_t ranks) {
  return at::arange(tokens, at::kLong).view({-1, ranks}).t().flatten();
}

TEST(BlockAttentionOrder, PermutedTokensGiveThePermutedResult) {
  constexpr std::int64_t kTokens = 192;
  AttentionProblem problem{1, kTokens, kTokens, 2, 1, 16, "causal", 0.2};
  for (const auto type : {at::kFloat, at::kDouble})
    for (const auto& order : {zigzag(kTokens, 4), striped(kTokens, 4)}) {
      auto wanted = whole(problem, type);
      for (const std::size_t i : {0U, 2U, 3U, 4U}) wanted[i] = wanted[i].index_select(1, order);
      wanted[1] = wanted[1].index_select(2, order);
      auto given = problem.tensors(type);
      for (auto& x : given) x = x.index_select(1, order);
      auto options = problem.options();
      options.mask.query_positions = options.mask.key_positions = order;
      const auto block = block_attention_forward(given[0], given[1], given[2], options);
      const BlockGradients into{at::zeros_like(given[0]), at::zeros_like(given[1]), at::zeros_like(given[2])};
      block_attention_backward(into, given[0], given[1], given[2], block, given[3],
                               block_attention_delta(block.out, given[3]), options);
      expect_close({block.out, block.log_sum, into.q, into.k, into.v}, wanted, tolerance(type));
    }
}

/// Pairs of 64 queries and 64 keys that are worked on where rank `query` of 4 meets the keys of rank `key`.
std::int64_t visited(const at::Tensor& order, std::int64_t query, std::int64_t key) {
  const auto parts = order.chunk(4);
  BlockMask mask;
  mask.causal = true;
  mask.query_positions = parts[static_cast<std::size_t>(query)];
  mask.key_positions = parts[static_cast<std::size_t>(key)];
  const auto count = mask.query_positions.numel(), sides = count / kSightSide;
  return BlockSight(mask, 1, count, count).seen(0, 0, sides, 0, sides);
}

TEST(BlockSight, ZigzagHalvesSkipWhatTheyDoNotSee) {
  const auto order = zigzag(4 * 2 * 128, 4);  // each rank has 2 chunks of 2 x 64 tokens
  for (std::int64_t query = 0; query < 4; ++query)
    for (std::int64_t key = 0; key < 4; ++key)
      // of 4 x 4 pairs: two triangles and a square of one's own; else one half of the keys, or of the queries
      EXPECT_EQ(visited(order, query, key), query == key ? 3 + 3 + 4 : 8) << query << " " << key;
}

TEST(BlockSight, RanksInOrderSkipLaterOnes) {
  const auto order = at::arange(4 * 256, at::kLong);
  EXPECT_EQ(visited(order, 1, 0), 16);
  EXPECT_EQ(visited(order, 1, 1), 10);
  EXPECT_EQ(visited(order, 1, 2), 0);
  EXPECT_EQ(visited(striped(4 * 256, 4), 1, 2), 10);
}

TEST(BlockSight, OtherDocumentsAndPaddingAreSkipped) {
  BlockMask mask;
  mask.query_documents = mask.key_documents = at::arange(4, at::kLong).repeat_interleave(128).unsqueeze(0);
  mask.key_valid = at::arange(512).lt(300).unsqueeze(0);
  const BlockSight sight(mask, 1, 512, 512);
  EXPECT_EQ(sight.seen(0, 0, 8, 0, 8), 4 + 4 + 2);
  EXPECT_EQ(sight.sight(0, 0, 0), BlockSight::Sight::kAll);
  EXPECT_EQ(sight.sight(0, 4, 4), BlockSight::Sight::kSome);
  EXPECT_EQ(sight.sight(0, 4, 5), BlockSight::Sight::kNone);
  EXPECT_EQ(sight.sight(0, 0, 2), BlockSight::Sight::kNone);
}

TEST(BlockSight, SpansJoinWhatIsSeenUpToFourSides) {
  BlockMask mask;
  mask.key_valid = at::ones({1, 640}, at::kBool);
  mask.key_valid.slice(1, 64, 128).fill_(false);
  std::vector<std::pair<std::int64_t, std::int64_t>> spans;
  BlockSight(mask, 1, 64, 640).for_each_span(0, 0, 0, 10, [&](std::int64_t first, std::int64_t sides) {
    spans.emplace_back(first, sides);
  });
  EXPECT_EQ(spans, (decltype(spans){{0, 1}, {2, 2}, {4, 4}, {8, 2}}));
}

// ---- dropout

TEST(BlockAttentionDropout, DropsTheAskedShareAndScalesTheRest) {
  constexpr std::int64_t kTokens = 128;
  const auto values = at::eye(kTokens).view({1, kTokens, 1, kTokens}).repeat({1, 1, 2, 1});
  const auto q = at::zeros({1, kTokens, 2, kTokens});
  BlockAttentionOptions options;
  options.dropout = {0.3, 9, 0, 0};
  const auto p = block_attention_forward(q, q, values, options).out * kTokens;  // 0 or 1 / 0.7
  const auto kept = p.gt(0).to(at::kFloat);
  EXPECT_NEAR(kept.mean().item<double>(), 0.7, 0.01);
  expect_close({p}, {kept / 0.7}, 1e-5);
  EXPECT_FALSE(kept.select(2, 0).equal(kept.select(2, 1))) << "heads drop alike";
  options.dropout.seed = 10;
  EXPECT_FALSE(block_attention_forward(q, q, values, options).out.gt(0).equal(p.gt(0))) << "seeds drop alike";
}

}  // namespace
}  // namespace stoa::ops::test
