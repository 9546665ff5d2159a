#include "stoa/nn/packed_tokens.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa::nn {
namespace {

at::Tensor batch_of_three() {
  return at::tensor({1, 2, 3, 9, 4, 9, 9, 9, 5, 6, 7, 8}, at::kLong).view({3, 4});
}

at::Tensor lengths_of_three() {
  return at::tensor({3, 1, 4}, at::kLong);
}

TEST(PackedTokens, LeaveOutPadding) {
  const auto packed = pack_tokens(batch_of_three(), lengths_of_three(), batch_of_three() + 10);
  EXPECT_TRUE(packed.ids.equal(at::arange(1, 9, at::kLong)));
  EXPECT_TRUE(packed.segments.equal(at::arange(11, 19, at::kLong)));
  EXPECT_TRUE(packed.positions.equal(at::tensor({0, 1, 2, 0, 0, 1, 2, 3}, at::kLong)));
  EXPECT_TRUE(packed.offsets.equal(at::tensor({0, 3, 4, 8}, at::kLong)));
  EXPECT_EQ(packed.longest, 4);
  EXPECT_EQ(packed.sequences(), 3);
}

TEST(PackedTokens, UnpackPutsThemBack) {
  const auto packed = pack_tokens(batch_of_three(), lengths_of_three());
  const auto values = at::arange(16, at::kFloat).view({8, 2});
  const auto spread = packed.unpack(values, -1);
  EXPECT_EQ(spread.sizes(), (at::IntArrayRef{3, 4, 2}));
  EXPECT_TRUE(spread[1][0].equal(values[3]));
  EXPECT_EQ(spread[1][1][0].item<float>(), -1);
  EXPECT_TRUE(packed.pack(spread).equal(values));
}

TEST(PackedTokens, FirstAndMeanAreBySequence) {
  const auto packed = pack_tokens(batch_of_three(), lengths_of_three());
  const auto values = packed.ids.to(at::kFloat).unsqueeze(1);
  EXPECT_TRUE(packed.first(values).flatten().equal(at::tensor({1.F, 4.F, 5.F})));
  EXPECT_TRUE(packed.mean(values).flatten().equal(at::tensor({2.F, 4.F, 6.5F})));
}

TEST(PackedTokens, WithoutPaddingNothingIsMoved) {
  const auto ids = batch_of_three();
  const auto packed = pack_tokens(ids, {});
  EXPECT_FALSE(packed.places.defined());
  EXPECT_EQ(packed.ids.data_ptr(), ids.data_ptr());
  EXPECT_TRUE(packed.unpack(packed.ids).equal(ids));
}

TEST(PackedTokens, RefuseLengthsOutsideTheBatch) {
  for (const auto wrong : {0, 5})
    STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([&] {
                           pack_tokens(batch_of_three(), at::tensor({3, wrong, 4}, at::kLong));
                         }),
                         "they must be from 1 to 4");
}

}  // namespace
}  // namespace stoa::nn
