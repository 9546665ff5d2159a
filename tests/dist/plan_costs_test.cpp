#include "stoa/dist/plan_costs.h"

#include <gtest/gtest.h>

namespace stoa::dist {
namespace {

TEST(PlanCosts, ZeroOfSevenBillionParametersOnSixtyFourRanks) {  // large-scale-optimisation.md 2.8
  constexpr ParameterBytes kMixedAdam{2, 2, 12};
  const auto gigabytes = [&](std::int64_t stage) { return zero_bytes(7.5e9, kMixedAdam, stage, 64) / 1e9; };
  EXPECT_NEAR(gigabytes(0), 120, 0.05);
  EXPECT_NEAR(gigabytes(1), 31.4, 0.05);
  EXPECT_NEAR(gigabytes(2), 16.6, 0.05);
  EXPECT_NEAR(gigabytes(3), 1.9, 0.05);
}

TEST(PlanCosts, ZeroDealsOutNothingOnOneRank) {
  for (std::int64_t stage = 0; stage <= 3; ++stage) EXPECT_EQ(zero_bytes(10, {4, 4, 8}, stage, 1), 160);
}

TEST(PlanCosts, ARingOfEightSendsSevenMegabytesOfAMillionFloats) {  // large-scale-optimisation.md 7.14
  const Link link{1e6, 0};
  EXPECT_DOUBLE_EQ(all_reduce_seconds(4e6, 8, link), 7);
  EXPECT_DOUBLE_EQ(all_gather_seconds(4e6, 8, link), 3.5);
  EXPECT_DOUBLE_EQ(all_reduce_seconds(0, 8, {1, 0.5}), 7);  // 14 messages one behind the other
  EXPECT_EQ(all_reduce_seconds(4e6, 1, link), 0);
}

TEST(PlanCosts, AStageWaitsWhileThePipelineFillsAndDrains) {
  EXPECT_DOUBLE_EQ(pipeline_idle(4, 8), 3.0 / 11);
  EXPECT_EQ(pipeline_idle(1, 8), 0);
}

TEST(PlanCosts, TrafficOfALayerIsThatOfTheTable) {  // sequence-parallelism.md 2.4 and 7
  constexpr double kPart = 12 * 128 * 64;           // of 4 ranks: 12 heads, 512 / 4 tokens, 64 numbers
  EXPECT_DOUBLE_EQ(sequence_traffic(SequenceMethod::kRsa, 4) * kPart, 1'769'472);
  EXPECT_DOUBLE_EQ(sequence_traffic(SequenceMethod::kRing, 4), 20);
  EXPECT_DOUBLE_EQ(sequence_traffic(SequenceMethod::kGatherKv, 4), 18);
  EXPECT_DOUBLE_EQ(sequence_traffic(SequenceMethod::kUlysses, 4), 6);
  EXPECT_DOUBLE_EQ(sequence_traffic(SequenceMethod::kHybrid, 4, 2), 10);
  EXPECT_DOUBLE_EQ(sequence_traffic(SequenceMethod::kRing, 2), 6);  // own gradients do not travel
  EXPECT_DOUBLE_EQ(sequence_traffic(SequenceMethod::kHybrid, 4, 4), 6);
  EXPECT_EQ(sequence_traffic(SequenceMethod::kRing, 1), 0);
}

TEST(PlanCosts, RowsOfExpertsTravelFourTimes) {
  EXPECT_DOUBLE_EQ(expert_traffic(100, 2, 64, 4), 4 * 100 * 2 * 64 * 0.75);
  EXPECT_EQ(expert_traffic(100, 2, 64, 1), 0);
  EXPECT_DOUBLE_EQ(all_to_all_seconds(4e6, 4, {1e6, 0.5}), 3 * 0.5 + 3);
}

BlockShape bert_base(double ranks) {  // of the example in sequence-parallelism.md 2.5
  BlockShape shape;
  shape.ranks = ranks;
  return shape;
}

TEST(PlanBlocks, ThePapersExampleOfFourRanks) {
  const auto shape = bert_base(4);
  EXPECT_NEAR(mlp_by_sequence(shape) / 1e6, 50.33, 0.005);
  EXPECT_NEAR(mlp_by_tensor(shape) / 1e6, 55.05, 0.005);
  EXPECT_NEAR(attention_by_rsa(shape) / 1e6, 91.23, 0.005);
  EXPECT_NEAR(attention_by_tensor(shape) / 1e6, 103.02, 0.005);
}

TEST(PlanBlocks, SequencesWinFromAsManyTokensAsThePaperSaysForAnyNumberOfRanks) {
  for (const double ranks : {2.0, 8.0, 64.0}) {
    auto shape = bert_base(ranks);
    shape.batch = 1;
    shape.length = 32 * 768;  // BL = 32 H
    EXPECT_DOUBLE_EQ(mlp_by_sequence(shape), mlp_by_tensor(shape));
    shape.length = 16 * 768;  // BL = 16 A Z
    EXPECT_DOUBLE_EQ(attention_by_rsa(shape), attention_by_tensor(shape));
  }
}

TEST(PlanBlocks, OfLinformerEveryLengthIsDividedByTheRanks) {
  auto shape = bert_base(4), longer = bert_base(8);
  longer.length *= 2;
  EXPECT_DOUBLE_EQ(linformer_by_sequence(shape), linformer_by_sequence(longer));
  // 2AZH + 2BZLA/N + BZLK/N + BLH/N + 2BZKA
  EXPECT_DOUBLE_EQ(linformer_by_sequence(shape),
                   2 * 768. * 768 + (2 * 64. * 512 * 768 + 64. * 12 * 512 * 256 + 64. * 512 * 768) / 4 +
                       2 * 64. * 256 * 768);
}

/// Of the formulas; sequence/memory_dist_test.cpp holds them to what is measured.
TEST(PlanBlocks, OfARingHasNoTermInPairs) {
  auto shape = bert_base(4), longer = bert_base(8);
  longer.length *= 2;  // the same chunk
  EXPECT_DOUBLE_EQ(attention_by_ring(shape), attention_by_ring(longer));
  EXPECT_DOUBLE_EQ(block_peak_bytes(BlockMethod::kRing, shape), block_peak_bytes(BlockMethod::kRing, longer));
  EXPECT_GT(block_peak_bytes(BlockMethod::kRsa, longer), 1.5 * block_peak_bytes(BlockMethod::kRsa, shape));
}

TEST(PlanBlocks, TheLongestSequenceFitsAndTheNextDoesNot) {
  constexpr double kBytes = 2.0 * (1 << 30), kStep = 1024;
  for (const auto method :
       {BlockMethod::kTensorScores, BlockMethod::kTensorTiled, BlockMethod::kRsa, BlockMethod::kRing}) {
    BlockShape shape{1, 0, 512, 8, 64, 4};
    shape.length = longest_sequence(method, shape, kBytes, kStep);
    EXPECT_GT(shape.length, 0) << name_of(method);
    EXPECT_LE(block_peak_bytes(method, shape), kBytes) << name_of(method);
    shape.length += kStep;
    EXPECT_GT(block_peak_bytes(method, shape), kBytes) << name_of(method);
  }
  EXPECT_EQ(longest_sequence(BlockMethod::kRing, {1, 0, 512, 8, 64, 4}, 1000, kStep), 0);
}

}  // namespace
}  // namespace stoa::dist
