#include "stoa/train/plan_scaling.h"

#include <gtest/gtest.h>

namespace stoa {
namespace {

constexpr std::int64_t kMost = 1024;

/// 12 blocks of BERT-base on 64 x 512 tokens.
PlanModel base() {
  return blocks_of({}, 12);
}

PlanMachine machine() {
  return {0, 5e11, 4e10, 0, 0, {1.25e9, 5e-5}};
}

TEST(PlanScaling, BlocksAreThoseOfBertBase) {
  const auto model = base();
  EXPECT_EQ(model.learned, 85'054'464);  // without embeddings, the final norm and heads
  EXPECT_EQ(model.hidden, 3072);
  EXPECT_EQ(model.batch, 64);
  EXPECT_EQ(model.attention_macs, 12 * 2. * 512 * 512 * 768);
}

TEST(PlanScaling, LongerSequencesHaveMorePairs) {
  const auto model = base(), longer = grown(model, Growth::kSequence, 4);
  EXPECT_EQ(longer.tokens, 2048);
  EXPECT_EQ(longer.attention_macs, 16 * model.attention_macs);
  EXPECT_EQ(longer.macs - longer.attention_macs, 4 * (model.macs - model.attention_macs));
  EXPECT_EQ(longer.kept, 4 * model.kept);
  EXPECT_EQ(longer.batch, 64);
}

TEST(PlanScaling, OneDeviceIsItsOwnMeasure) {
  for (const auto growth : {Growth::kSequence, Growth::kBatch, Growth::kNothing})
    for (const auto method :
         {ScalingMethod::kRing, ScalingMethod::kAllToAll, ScalingMethod::kTensor, ScalingMethod::kData}) {
      const auto point = scaling_point(base(), growth, method, 1, machine());
      ASSERT_TRUE(point);
      EXPECT_DOUBLE_EQ(point->efficiency, 1);
      EXPECT_EQ(point->time.sequence + point->time.tensor + point->time.gradients, 0);
    }
}

TEST(PlanScaling, WithoutMessagesSplitSequencesAndBatchesLoseNothingButTheUpdate) {
  auto free = machine();
  free.link = {1e30, 0};
  for (const auto method : {ScalingMethod::kRing, ScalingMethod::kData}) {
    const auto point = scaling_point(base(), Growth::kSequence, method, 8, free);
    ASSERT_TRUE(point);
    EXPECT_LE(point->efficiency, 1);
    EXPECT_GT(point->efficiency, 0.99);
  }
}

TEST(PlanScaling, MemoryOfAPartStaysAsSequencesGrow) {
  const auto at = [](std::int64_t devices) {
    return scaling_point(base(), Growth::kSequence, ScalingMethod::kRing, devices, machine())
        ->memory.tensors();
  };
  EXPECT_NEAR(at(kMost) / at(1), 1, 0.03);
  // split matrices leave a part of what is kept whole
  const auto tensor = [](std::int64_t devices) {
    return scaling_point(base(), Growth::kSequence, ScalingMethod::kTensor, devices, machine())
        ->memory.activations;
  };
  EXPECT_GT(tensor(4), 2 * tensor(1));
}

TEST(PlanScaling, NothingIsSaidOfDevicesThatAMethodCannotUse) {
  const auto can = [](Growth growth, ScalingMethod method, std::int64_t devices) {
    return scaling_point(base(), growth, method, devices, machine()).has_value();
  };
  EXPECT_TRUE(can(Growth::kNothing, ScalingMethod::kRing, 512));
  EXPECT_FALSE(can(Growth::kNothing, ScalingMethod::kRing, 1024));  // 512 tokens
  EXPECT_TRUE(can(Growth::kSequence, ScalingMethod::kRing, 1024));
  EXPECT_TRUE(can(Growth::kSequence, ScalingMethod::kAllToAll, 4));
  EXPECT_FALSE(can(Growth::kSequence, ScalingMethod::kAllToAll, 8));  // 12 heads
  EXPECT_FALSE(can(Growth::kSequence, ScalingMethod::kTensor, 8));
  EXPECT_FALSE(can(Growth::kSequence, ScalingMethod::kData, 128));  // 64 samples
  EXPECT_TRUE(can(Growth::kBatch, ScalingMethod::kData, 1024));
  auto images = base();
  images.splits_sequences = false;
  EXPECT_FALSE(scaling_point(images, Growth::kSequence, ScalingMethod::kRing, 2, machine()));
}

TEST(PlanScaling, ASlowerLinkCostsEfficiency) {
  auto slow = machine();
  slow.link.bytes_per_s /= 100;
  for (const auto method : {ScalingMethod::kRing, ScalingMethod::kAllToAll, ScalingMethod::kTensor}) {
    const auto fast = scaling_point(base(), Growth::kBatch, method, 4, machine());
    EXPECT_LT(scaling_point(base(), Growth::kBatch, method, 4, slow)->efficiency, 0.5 * fast->efficiency);
  }
}

}  // namespace
}  // namespace stoa
