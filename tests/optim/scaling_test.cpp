#include "stoa/optim/scaling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa::optim {
namespace {

const BatchSettings kCriteo{1024, 1e-4, 8e-4, 1e-5};

struct Row {
  const char* name;
  ScalingRule rule;
  double embedding_lr, dense_lr, l2;  // factors for s = 16
};
void PrintTo(const Row& row, std::ostream* out) {
  *out << row.name;
}

class ScalingRules : public testing::TestWithParam<Row> {};

TEST_P(ScalingRules, MultiplyAsTheTableSays) {
  const auto& row = GetParam();
  const auto scaled = scale_batch(kCriteo, 16 * 1024, row.rule);
  EXPECT_EQ(scaled.batch, 16 * 1024);
  EXPECT_DOUBLE_EQ(scaled.embedding_lr, 1e-4 * row.embedding_lr);
  EXPECT_DOUBLE_EQ(scaled.dense_lr, 8e-4 * row.dense_lr);
  EXPECT_DOUBLE_EQ(scaled.l2, 1e-5 * row.l2);
}

TEST_P(ScalingRules, AreFoundByName) {
  EXPECT_EQ(scaling_rule(GetParam().name), GetParam().rule);
}

TEST_P(ScalingRules, ComeBackToTheBase) {
  const auto back = scale_batch(scale_batch(kCriteo, 131072, GetParam().rule), 1024, GetParam().rule);
  EXPECT_NEAR(back.embedding_lr / kCriteo.embedding_lr, 1, 1e-12);
  EXPECT_NEAR(back.dense_lr / kCriteo.dense_lr, 1, 1e-12);
  EXPECT_NEAR(back.l2 / kCriteo.l2, 1, 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Table, ScalingRules,
                         testing::Values(Row{"none", ScalingRule::kNone, 1, 1, 1},
                                         Row{"sqrt", ScalingRule::kSqrt, 4, 4, 4},
                                         Row{"sqrt_star", ScalingRule::kSqrtStar, 4, 4, 1},
                                         Row{"linear", ScalingRule::kLinear, 16, 16, 1},
                                         Row{"n2_lambda", ScalingRule::kN2Lambda, 1, 4, 256},
                                         Row{"cowclip", ScalingRule::kCowClip, 1, 4, 16}));

TEST(Scaling, CalculatorPrintsThePublishedSettings) {
  const auto text = scaling_text(kCriteo, 131072, ScalingRule::kCowClip);
  STOA_EXPECT_CONTAINS(text, "rule cowclip, batch 1024 -> 131072, s = 128\n");
  STOA_EXPECT_CONTAINS(text, "dense learning rate      8e-4 -> 90.51e-4");
  STOA_EXPECT_CONTAINS(text, "L2 of the embeddings     1e-5 -> 128e-5 ");
  STOA_EXPECT_CONTAINS(text, "embedding learning rate  1e-4 -> 1e-4 ");
}

TEST(Scaling, CalculatorPrintsSmallLargeAndZeroValues) {
  const auto smaller = scaling_text(kCriteo, 128, ScalingRule::kCowClip);
  STOA_EXPECT_CONTAINS(smaller, "s = 0.125\n");
  STOA_EXPECT_CONTAINS(smaller, "8e-4 -> 2.828e-4");
  STOA_EXPECT_CONTAINS(smaller, "1e-5 -> 0.125e-5");
  STOA_EXPECT_CONTAINS(scaling_text(kCriteo, 131072, ScalingRule::kN2Lambda), "1e-5 -> 16384e-5");
  STOA_EXPECT_CONTAINS(scaling_text({64, 1e-3, 1, 0}, 256, ScalingRule::kSqrt), "0 -> 0");
  STOA_EXPECT_CONTAINS(scaling_text({64, 1e-3, 1, 0}, 256, ScalingRule::kSqrt), "1 -> 2 ");
}

TEST(Scaling, RefusesWhatIsNoSetting) {
  const auto refused = [](BatchSettings base, std::int64_t batch) {
    return test::thrown<ConfigError>([&] { scale_batch(base, batch, ScalingRule::kCowClip); });
  };
  STOA_EXPECT_CONTAINS(refused(kCriteo, 0), "a batch of 0 rows");
  STOA_EXPECT_CONTAINS(refused({0, 1e-4, 1e-4, 1e-5}, 64), "a batch of 0 rows");
  STOA_EXPECT_CONTAINS(refused({64, -1e-4, 1e-4, 1e-5}, 64), "the embedding learning rate is -0.0001");
  STOA_EXPECT_CONTAINS(refused({64, 1e-4, std::nan(""), 1e-5}, 64), "the dense learning rate is nan");
  STOA_EXPECT_CONTAINS(refused({64, 1e-4, 1e-4, std::numeric_limits<double>::infinity()}, 64),
                       "the L2 of the embeddings is inf");
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([] { scaling_rule("cowclp"); }), "did you mean `cowclip`?");
}

}  // namespace
}  // namespace stoa::optim
