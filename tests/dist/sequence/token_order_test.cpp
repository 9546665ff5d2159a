#include "stoa/dist/sequence/token_order.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <vector>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa::dist {
namespace {

using Numbers = std::vector<std::int64_t>;

Numbers numbers(const at::Tensor& t) {
  const auto flat = t.contiguous();
  return {flat.data_ptr<std::int64_t>(), flat.data_ptr<std::int64_t>() + flat.numel()};
}

/// Pairs of a query of each rank and a key that a causal mask lets it see.
Numbers causal_pairs(TokenOrder order, std::int64_t length, int ranks) {
  Numbers pairs;
  for (int rank = 0; rank < ranks; ++rank)
    pairs.push_back(token_positions(order, length, ranks, rank)
                        .unsqueeze(1)
                        .ge(at::arange(length, at::kLong))
                        .sum()
                        .item<std::int64_t>());
  return pairs;
}

TEST(TokenOrder, ContiguousRanksHoldTokensThatFollowOneAnother) {
  EXPECT_EQ(numbers(token_positions(TokenOrder::kContiguous, 12, 3, 1)), (Numbers{4, 5, 6, 7}));
}

TEST(TokenOrder, StripedRanksHoldEveryNthToken) {
  EXPECT_EQ(numbers(token_positions(TokenOrder::kStriped, 12, 3, 1)), (Numbers{1, 4, 7, 10}));
}

TEST(TokenOrder, ZigzagRanksHoldAPieceAndItsMirrorImage) {
  // of six pieces 1 6 | 2 5 | 3 4
  EXPECT_EQ(numbers(token_positions(TokenOrder::kZigzag, 6, 3, 0, 3)), (Numbers{0, 5, 1, 4, 2, 3}));
  EXPECT_EQ(numbers(token_positions(TokenOrder::kZigzag, 12, 3, 1)), (Numbers{2, 3, 8, 9}));
}

TEST(TokenOrder, BalancesCausalWorkAsPublished) {
  EXPECT_EQ(causal_pairs(TokenOrder::kContiguous, 64, 4), (Numbers{136, 392, 648, 904}));
  EXPECT_EQ(causal_pairs(TokenOrder::kStriped, 64, 4), (Numbers{496, 512, 528, 544}));
  EXPECT_EQ(causal_pairs(TokenOrder::kZigzag, 64, 4), (Numbers{520, 520, 520, 520}));
}

TEST(TokenOrder, BackIsTheInverseOfTo) {
  const auto whole = at::randn({2, 24, 3});
  for (const auto order : {TokenOrder::kContiguous, TokenOrder::kZigzag, TokenOrder::kStriped}) {
    const auto ordered = to_order(whole, 1, order, 4);
    EXPECT_TRUE(from_order(ordered, 1, order, 4).equal(whole)) << name_of(order);
    for (int rank = 0; rank < 4; ++rank)
      EXPECT_TRUE(ordered.narrow(1, rank * 6, 6).equal(chunk_of(whole, 1, order, 4, rank))) << name_of(order);
  }
}

TEST(TokenOrder, TakesADimensionFromTheEnd) {
  const auto whole = at::arange(12, at::kLong).view({1, 12});
  EXPECT_EQ(numbers(chunk_of(whole, -1, TokenOrder::kStriped, 4, 3)), (Numbers{3, 7, 11}));
}

TEST(TokenOrder, RefusesALengthThatCannotBeSplitAndSaysHowToPadIt) {
  const auto message = test::thrown<ConfigError>([] { check_length(10, TokenOrder::kContiguous, 4); });
  STOA_EXPECT_CONTAINS(message, "10 tokens cannot be split over 4 ranks in contiguous order");
  STOA_EXPECT_CONTAINS(message, "a multiple of 4 is needed: pad it to 12");
}

TEST(TokenOrder, ZigzagNeedsTwoPiecesARank) {
  const auto message = test::thrown<ConfigError>([] { token_positions(TokenOrder::kZigzag, 12, 4, 0); });
  STOA_EXPECT_CONTAINS(message, "12 tokens cannot be split over 4 ranks in zigzag order");
  STOA_EXPECT_CONTAINS(message, "a multiple of 8 is needed: pad it to 16");
}

TEST(TokenOrder, PadsToTheNextLengthThatCanBeSplit) {
  EXPECT_EQ(padded_length(512, TokenOrder::kStriped, 4), 512);
  EXPECT_EQ(padded_length(513, TokenOrder::kStriped, 4), 516);
  EXPECT_EQ(padded_length(513, TokenOrder::kZigzag, 4), 520);
}

TEST(TokenOrder, RefusesAnEmptySequence) {
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([] { check_length(0, TokenOrder::kStriped, 3); }),
                       "0 tokens");
}

}  // namespace
}  // namespace stoa::dist
