#include "stoa/metrics/binary.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa::metrics {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

at::Tensor floats(std::vector<float> values) {
  return at::tensor(values, at::kFloat);
}

/// The definition, pair by pair.
double auc_by_pairs(const at::Tensor& scores, const at::Tensor& labels) {
  const auto positive = scores.masked_select(labels == 1).unsqueeze(1);
  const auto negative = scores.masked_select(labels == 0).unsqueeze(0);
  const auto won =
      (positive > negative).sum().item<double>() + 0.5 * (positive == negative).sum().item<double>();
  return won / static_cast<double>(positive.numel() * negative.numel());
}

/// Logits [rows] rounded to steps of 1 / fineness, so that some are equal, and labels that follow them.
struct Problem {
  explicit Problem(std::int64_t rows, double fineness) {
    at::manual_seed(5);
    logits = at::round(at::randn({rows}) * fineness) / fineness;
    labels = at::bernoulli(at::sigmoid(0.7 * logits - 1));
  }
  BinaryScores scores() const {
    BinaryScores all;
    all.add(logits, labels);
    return all;
  }
  at::Tensor logits, labels;
};

TEST(Auc, EqualsTheDefinition) {
  for (const double fineness : {2.0, 1000.0, 1e7}) {
    const Problem p(3000, fineness);  // sorted by comparisons
    EXPECT_DOUBLE_EQ(auc(p.logits, p.labels), auc_by_pairs(p.logits, p.labels)) << fineness;
    const Problem q(6000, fineness);  // sorted by digits
    EXPECT_DOUBLE_EQ(auc(q.logits, q.labels), auc_by_pairs(q.logits, q.labels)) << fineness;
  }
}

TEST(Auc, DoesNotDependOnThreadsOrOrder) {
  const Problem p(300000, 50);
  const auto threads = at::get_num_threads();
  at::set_num_threads(1);
  const double alone = auc(p.logits, p.labels);
  at::set_num_threads(4);
  EXPECT_EQ(auc(p.logits, p.labels), alone);
  EXPECT_EQ(auc(p.logits.flip(0), p.labels.flip(0)), alone);
  at::set_num_threads(threads);
}

TEST(Auc, EqualScoresGiveOneHalf) {
  EXPECT_EQ(auc(at::full({10}, 0.3), floats({0, 1, 0, 0, 1, 0, 0, 0, 1, 0})), 0.5);
  EXPECT_EQ(auc(floats({-0.0F, 0.0F}), floats({1, 0})), 0.5);
}

TEST(Auc, EndsOfTheScale) {
  EXPECT_EQ(auc(floats({-kInfinity, -2, 3, kInfinity}), floats({0, 0, 1, 1})), 1);
  EXPECT_EQ(auc(floats({-kInfinity, -2, 3, kInfinity}), floats({1, 1, 0, 0})), 0);
}

TEST(Auc, RefusesOneClass) {
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([] {
                         auc(floats({1, 2, 3}), floats({1, 1, 1}));
                       }),
                       "all 3 labels are 1");
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([] {
                         auc(floats({1, 2}), floats({0, 0}));
                       }),
                       "all 2 labels are 0");
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([] { BinaryScores().results(); }), "there are no rows");
}

TEST(BinaryScores, RefusesWhatIsNoScoreOrLabel) {
  BinaryScores scores;
  scores.add(floats({1, 2}), floats({0, 1}));
  STOA_EXPECT_CONTAINS(test::thrown<NumericError>([&] {
                         scores.add(floats({1, NAN}), floats({0, 1}));
                       }),
                       "the score of row 3 is NaN");
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] {
                         scores.add(floats({1, 2}), floats({0.5, 1}));
                       }),
                       "the label of row 2 is 0.5");
  test::thrown<ShapeError>([&] { scores.add(floats({1, 2}), floats({1})); });
  STOA_EXPECT_CONTAINS(
      test::thrown<Error>([&] { scores.add(floats({1}), floats({1}), at::zeros({1}, at::kLong)); }),
      "buckets");
  EXPECT_EQ(scores.rows(), 2) << "a refused batch left rows behind";
}

TEST(BinaryScores, BatchesDoNotMatter) {
  const Problem p(50000, 100);
  BinaryScores parts;
  for (std::int64_t begin = 0; begin < 50000; begin += 7777) {
    const auto end = std::min<std::int64_t>(begin + 7777, 50000);
    parts.add(p.logits.slice(0, begin, end), p.labels.slice(0, begin, end).to(at::kByte));
  }
  const auto a = parts.results(), b = p.scores().results();
  EXPECT_EQ(a.auc, b.auc);
  EXPECT_EQ(a.log_loss, b.log_loss);
  EXPECT_EQ(a.predicted, b.predicted);
  EXPECT_EQ(a.calibration_error, b.calibration_error);
}

TEST(BinaryScores, LogLossEqualsTheDefinition) {
  const Problem p(20000, 1000);
  const auto rate = at::sigmoid(p.logits.to(at::kDouble)).clamp(1e-15, 1 - 1e-15);
  const auto loss = -(p.labels * rate.log() + (1 - p.labels) * (1 - rate).log()).mean();
  EXPECT_NEAR(p.scores().log_loss(), loss.item<double>(), 1e-12);
}

TEST(BinaryScores, LogLossIsClippedAndExactFarOut) {
  const auto loss = [](float logit, float label) {
    BinaryScores scores;
    scores.add(floats({logit}), floats({label}));
    return scores.log_loss();
  };
  EXPECT_DOUBLE_EQ(loss(kInfinity, 0), -std::log(1e-15));
  EXPECT_DOUBLE_EQ(loss(-100, 1), -std::log(1e-15));
  EXPECT_NEAR(loss(100, 1), 1e-15, 1e-18);
  EXPECT_NEAR(loss(-30, 1), 30, 1e-12);  // a rate of 1e-13, which fp32 probabilities still hold
  EXPECT_NEAR(loss(30, 0), 30, 1e-12);   // here they would be 1
}

TEST(BinaryScores, CalibrationIsPredictedOverActual) {
  BinaryScores scores;
  scores.add(floats({0, 0, 0, 0}), floats({1, 0, 0, 0}));
  const auto results = scores.results();
  EXPECT_DOUBLE_EQ(results.predicted, 0.5);
  EXPECT_DOUBLE_EQ(results.actual, 0.25);
  EXPECT_DOUBLE_EQ(results.calibration, 2);
  EXPECT_DOUBLE_EQ(results.calibration_error, 0.25);
}

TEST(Calibration, BinsOfEqualMassHaveEqualRows) {
  const auto bins = Problem(10000, 1e6).scores().calibration(8, Binning::kMass);
  ASSERT_EQ(bins.size(), 8U);
  for (std::size_t i = 0; i < bins.size(); ++i) {
    EXPECT_NEAR(static_cast<double>(bins[i].rows), 1250, 3);
    EXPECT_LE(bins[i].low, bins[i].predicted);
    EXPECT_LE(bins[i].predicted, bins[i].high);
    EXPECT_TRUE(i == 0 || bins[i].low > bins[i - 1].high);
  }
}

TEST(Calibration, EqualScoresShareABin) {
  // ten rows of one score and two others: bins cannot cut the ten
  const auto logits = at::cat({at::zeros({10}), floats({-1, 1})});
  BinaryScores scores;
  scores.add(logits, at::ones({12}));
  const auto bins = scores.calibration(4, Binning::kMass);
  ASSERT_EQ(bins.size(), 2U);
  EXPECT_EQ(bins[0].rows, 11);
  EXPECT_EQ(bins[1].rows, 1);
}

TEST(Calibration, BinsOfEqualWidthEqualTheDefinition) {
  const Problem p(8000, 1e6);
  const auto bins = p.scores().calibration(10, Binning::kWidth);
  const auto rate = at::sigmoid(p.logits.to(at::kDouble));
  ASSERT_EQ(bins.size(), 10U);
  double error = 0;
  for (int i = 0; i < 10; ++i) {
    const auto inside = (rate * 10).floor() == i;
    const auto& bin = bins[static_cast<std::size_t>(i)];
    EXPECT_EQ(bin.rows, inside.sum().item<std::int64_t>());
    EXPECT_EQ(bin.positives, p.labels.masked_select(inside).sum().item<std::int64_t>());
    EXPECT_NEAR(bin.predicted, rate.masked_select(inside).mean().item<double>(), 1e-12);
    error +=
        std::abs(rate.masked_select(inside).sum().item<double>() - static_cast<double>(bin.positives)) / 8000;
  }
  EXPECT_NEAR(expected_calibration_error(bins), error, 1e-12);
}

TEST(Calibration, EmptyBinsAreLeftOut) {
  BinaryScores scores;
  scores.add(floats({-5, 5}), floats({0, 1}));
  EXPECT_EQ(scores.calibration(10, Binning::kWidth).size(), 2U);
}

TEST(Buckets, AreMeasuredApart) {
  const Problem p(5000, 100);
  const auto buckets = at::arange(5000, at::kLong).remainder(3) * 4;  // 0, 4, 8
  BinaryScores scores;
  scores.add(p.logits, p.labels, buckets);
  const auto table = scores.by_bucket();
  ASSERT_EQ(table.size(), 3U);
  for (int i = 0; i < 3; ++i) {
    const auto& row = table[static_cast<std::size_t>(i)];
    const auto logits = p.logits.masked_select(buckets == 4 * i),
               labels = p.labels.masked_select(buckets == 4 * i);
    EXPECT_EQ(row.bucket, 4 * i);
    EXPECT_EQ(row.rows, logits.size(0));
    EXPECT_DOUBLE_EQ(row.auc.value(), auc_by_pairs(logits, labels));
    EXPECT_NEAR(row.actual, labels.mean().item<double>(), 1e-6);
    EXPECT_NEAR(row.predicted, at::sigmoid(logits).mean().item<double>(), 1e-6);
  }
}

TEST(Buckets, RefusesNumbersOutOfRange) {
  BinaryScores scores;
  for (const int bucket : {-1, 1024})
    STOA_EXPECT_CONTAINS(
        test::thrown<Error>([&] { scores.add(floats({1}), floats({1}), at::full({1}, bucket, at::kLong)); }),
        "the bucket of row 0 is");
  EXPECT_EQ(scores.rows(), 0);
}

TEST(Buckets, OneClassHasNoAuc) {
  BinaryScores scores;
  scores.add(floats({1, 2, 3, 4}), floats({0, 1, 1, 1}), at::tensor({0, 0, 1, 1}, at::kInt));
  const auto table = scores.by_bucket();
  EXPECT_EQ(table.at(0).auc, 1.0);
  EXPECT_FALSE(table.at(1).auc);
  EXPECT_EQ(scores.auc(), 1.0);
}

}  // namespace
}  // namespace stoa::metrics
