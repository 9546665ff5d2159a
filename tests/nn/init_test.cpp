#include "stoa/nn/init.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace stoa::nn {
namespace {

class Initialisers : public testing::Test {
 protected:
  void SetUp() override { at::manual_seed(1); }
  double largest() const { return tensor.abs().max().item<double>(); }
  double deviation() const { return tensor.std().item<double>(); }
  at::Tensor tensor = at::empty({200000}, at::kDouble);
};

TEST_F(Initialisers, GlorotUniformFillsItsRange) {
  glorot_uniform_(tensor, 40, 56);  // bound sqrt(6 / 96) = 1/4
  EXPECT_LE(largest(), 0.25);
  EXPECT_GT(largest(), 0.2499);
  EXPECT_NEAR(deviation(), 0.25 / std::sqrt(3), 1e-3);
}

TEST_F(Initialisers, NormalHasItsDeviation) {
  normal_(tensor, 0.02);
  EXPECT_NEAR(deviation(), 0.02, 2e-4);
  EXPECT_GT(largest(), 0.06);
}

TEST_F(Initialisers, TruncatedNormalIsCutAtTwoDeviations) {
  truncated_normal_(tensor, 0.02);
  EXPECT_LE(largest(), 0.04);
  EXPECT_GT(largest(), 0.0399);
  EXPECT_NEAR(deviation(), 0.02 * 0.87963, 2e-4);  // a normal cut at two deviations has sd 0.87963
}

TEST_F(Initialisers, GlorotNormalHasItsDeviationAfterTheCut) {
  glorot_normal_(tensor, 40, 88);  // deviation sqrt(2 / 128) = 1/8
  EXPECT_NEAR(deviation(), 0.125, 1e-3);
  EXPECT_LE(largest(), 0.25 / 0.87962);
  EXPECT_GT(largest(), 0.249 / 0.87962);
}

TEST_F(Initialisers, ConstantFills) {
  constant_(tensor, 3);
  EXPECT_TRUE(tensor.eq(3).all().item<bool>());
}

TEST_F(Initialisers, RecordNoGradient) {
  tensor.requires_grad_(true);
  normal_(tensor, 1);
  EXPECT_FALSE(tensor.grad_fn());
}

TEST_F(Initialisers, DoNothingWhileSkipped) {
  tensor.fill_(7);
  {
    const SkipInitialisation skip;
    glorot_uniform_(tensor, 1, 1);
    normal_(tensor, 1);
    truncated_normal_(tensor, 1);
    glorot_normal_(tensor, 1, 1);
    constant_(tensor, 1);
  }
  EXPECT_TRUE(tensor.eq(7).all().item<bool>());
  constant_(tensor, 1);
  EXPECT_TRUE(tensor.eq(1).all().item<bool>());
}

}  // namespace
}  // namespace stoa::nn
