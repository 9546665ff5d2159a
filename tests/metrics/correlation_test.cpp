#include "stoa/metrics/correlation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa::metrics {
namespace {

using Values = std::vector<double>;
using Counts = std::vector<std::int64_t>;

TEST(Pearson, IsTheCosineOfTheDeviations) {
  // deviations (-1.5, -.5, .5, 1.5) and (-2, 1, -1, 2) / 2 ...: 13/2 / sqrt(5 * 10) for y = 1, 4, 2, 5
  EXPECT_NEAR(pearson(Values{1, 2, 3, 4}, Values{1, 4, 2, 5}), 5 / std::sqrt(5.0 * 10.0), 1e-15);
  EXPECT_DOUBLE_EQ(pearson(Values{1, 2, 3}, Values{30, 20, 10}), -1);
}

TEST(Pearson, DoesNotChangeWithScaleAndOffset) {
  const Values x = {0.5, 3, 1, 2.25, 4.75}, y = {1, 2, 0, 5, 3};
  Values far;
  for (const double value : x) far.push_back(1e8 + value / 1024);
  EXPECT_NEAR(pearson(far, y), pearson(x, y), 1e-7);
}

TEST(Pearson, OfAConstantIsZero) {
  EXPECT_EQ(pearson(Values{0.1, 0.1, 0.1}, Values{1, 2, 3}), 0);
  EXPECT_EQ(pearson(Values{1, 2, 3}, Values{0.3, 0.3, 0.3}), 0);
  EXPECT_EQ(pearson(Values{7}, Values{1}), 0);
  EXPECT_EQ(pearson(Values{}, Values{}), 0);
}

TEST(Pearson, RefusesWhatIsNoNumber) {
  STOA_EXPECT_CONTAINS(test::thrown<NumericError>([] {
                         pearson(Values{1, std::nan("")}, Values{1, 2});
                       }),
                       "value 1 is nan");
  STOA_EXPECT_CONTAINS(test::thrown<Error>([] { pearson(Values{1}, Values{1, 2}); }), "1 values with 2");
}

TEST(Ranks, TiesShareTheMean) {
  EXPECT_EQ(average_ranks(Values{20, 10, 20, 5, 20}), (Values{4, 2, 4, 1, 4}));
  EXPECT_EQ(average_ranks(Values{1, 1}), (Values{1.5, 1.5}));
}

TEST(Spearman, SeesTheOrderAlone) {
  EXPECT_DOUBLE_EQ(spearman(Values{1, 2, 3, 4}, Values{1, 10, 100, 1e6}), 1);
  // 1 - 6 sum d^2 / (n (n^2 - 1)) with d = (0, 2, -1, -1)
  EXPECT_NEAR(spearman(Values{1, 2, 3, 4}, Values{1, 4, 2, 3}), 1 - 6.0 * 6 / 60, 1e-15);
}

TEST(Spearman, OfTiesIsPearsonOfTheSharedRanks) {
  // ranks (1, 2.5, 2.5, 4) and (1, 2, 3, 4): 4.5 / sqrt(4.5 * 5)
  EXPECT_NEAR(spearman(Values{1, 2, 2, 3}, Values{1, 2, 3, 4}), 4.5 / std::sqrt(22.5), 1e-15);
}

TEST(Matthews, OfTwoClassesIsTheTextbookFormula) {
  // tn 50, fp 10, fn 5, tp 35
  EXPECT_NEAR(matthews(Counts{50, 10, 5, 35}, 2), (35.0 * 50 - 10 * 5) / std::sqrt(45.0 * 40 * 60 * 55),
              1e-15);
  EXPECT_DOUBLE_EQ(matthews(Counts{3, 0, 0, 4}, 2), 1);
  EXPECT_DOUBLE_EQ(matthews(Counts{0, 3, 4, 0}, 2), -1);
}

TEST(Matthews, OfAConstantPredictorIsZero) {
  EXPECT_EQ(matthews(Counts{0, 7, 0, 9}, 2), 0);
  EXPECT_EQ(matthews(Counts{7, 0, 0, 0}, 2), 0);
  EXPECT_EQ(matthews(Counts{0, 0, 0, 0}, 2), 0);
}

TEST(Matthews, OfThreeClassesIsTheCorrelationOfTheirIndicators) {
  // rows (2 0 1) (0 3 0) (1 0 2): s = 9, c = 7, p = t = (3, 3, 3)
  EXPECT_NEAR(matthews(Counts{2, 0, 1, 0, 3, 0, 1, 0, 2}, 3), (7.0 * 9 - 27) / (81 - 27), 1e-15);
}

TEST(F1, OfOneClassAgainstAllOthers) {
  EXPECT_NEAR(f1(Counts{50, 10, 5, 35}, 2, 1), 70.0 / (70 + 10 + 5), 1e-15);
  EXPECT_NEAR(f1(Counts{50, 10, 5, 35}, 2, 0), 100.0 / (100 + 10 + 5), 1e-15);
  EXPECT_EQ(f1(Counts{9, 0, 0, 0}, 2, 1), 0);
}

}  // namespace
}  // namespace stoa::metrics
