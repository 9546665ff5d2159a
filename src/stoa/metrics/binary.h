#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace stoa::metrics {

/// Area under the ROC curve, P(score+ > score-) + 0.5 P(tie), exactly: pairs are counted in integers after a
/// sort. scores [n] of a floating type, compared as fp32; labels [n] of 0 and 1. Throws NumericError for a
/// NaN score, DataError for other labels or where all labels are alike.
double auc(const at::Tensor& scores, const at::Tensor& labels);

/// Rows whose predicted rates are near one another.
struct CalibrationBin {
  double low = 0, high = 0;  ///< predicted rates, ends included
  std::int64_t rows = 0, positives = 0;
  double predicted = 0;  ///< mean over the rows
  double actual = 0;     ///< share of positives
};
enum class Binning {
  kWidth,  ///< equal ranges of the predicted rate; empty ones are left out
  kMass,   ///< about as many rows in each; rows of equal score stay together
};
/// sum over the bins of rows / all rows * |predicted - actual|; 0 without rows.
double expected_calibration_error(std::span<const CalibrationBin> bins);

/// What a binary classifier is measured by.
struct BinaryResults {
  std::int64_t rows = 0, positives = 0;
  double auc = 0;
  double log_loss = 0;           ///< mean, in nats
  double predicted = 0;          ///< mean predicted rate
  double actual = 0;             ///< share of positives
  double calibration = 0;        ///< predicted / actual: above 1 the model promises too much
  double calibration_error = 0;  ///< expected calibration error over kCalibrationBins bins of equal mass
};
constexpr std::int64_t kCalibrationBins = 20;
constexpr std::int64_t kBuckets = 1024;

/// The rows of one bucket.
struct BucketResults {
  std::int64_t bucket = 0, rows = 0, positives = 0;
  std::optional<double> auc;  ///< none where all labels of the bucket are alike
  double log_loss = 0, predicted = 0, actual = 0;
};

/// Gathers logits and labels of a test set batch by batch, 5 bytes a row (7 with buckets), and measures them.
/// Results depend neither on the size of the batches nor on the number of threads.
class BinaryScores {
 public:
  /// logits [b] of a floating type, kept as fp32; labels [b] of 0 and 1; buckets [b] of 0 to kBuckets - 1,
  /// e.g. the logarithm of how often a row's rarest id was seen: with every batch or with none. Throws
  /// NumericError for a NaN logit and DataError for another label, naming the row (counted from 0 over all
  /// batches).
  void add(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& buckets = {});

  std::int64_t rows() const { return static_cast<std::int64_t>(logits_.size()); }
  std::int64_t positives() const { return positives_; }

  /// All of them. Throws DataError without rows or where all labels are alike: there is no AUC then.
  BinaryResults results() const;
  double auc() const;
  /// Mean of -y ln p - (1 - y) ln(1 - p) with p kept within [1e-15, 1 - 1e-15], in fp64 from the logits, so
  /// that p is never rounded to 0 or 1 before.
  double log_loss() const;
  std::vector<CalibrationBin> calibration(std::int64_t bins = kCalibrationBins,
                                          Binning binning = Binning::kMass) const;
  /// Each bucket that has rows, in rising order; empty where none were given.
  std::vector<BucketResults> by_bucket() const;

 private:
  std::vector<float> logits_;
  std::vector<std::uint8_t> labels_;
  std::vector<std::uint16_t> buckets_;
  std::int64_t positives_ = 0;
};

}  // namespace stoa::metrics
