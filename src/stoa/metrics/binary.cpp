#include "stoa/metrics/binary.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/metrics/score_order.h"
#include "stoa/tensor/shape.h"

namespace stoa::metrics {
namespace {

constexpr double kClip = 1e-15;                  // of predicted rates, in the logarithmic loss
constexpr std::int64_t kRowsOfABlock = 1 << 14;  // sums are cut here whatever the number of threads

double sigmoid(double z) {
  return 1 / (1 + std::exp(-z));
}

struct Sums {
  double predicted = 0, loss = 0;
};

/// Sums of the predicted rates and of the losses, the same for any number of threads.
Sums sum_rows(const float* logits, const std::uint8_t* labels, std::int64_t rows) {
  const double least = -std::log1p(-kClip), most = -std::log(kClip);
  std::vector<Sums> blocks(static_cast<std::size_t>((rows + kRowsOfABlock - 1) / kRowsOfABlock));
  at::parallel_for(0, std::ssize(blocks), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto b = begin; b < end; ++b) {
      Sums sums;
      for (auto i = b * kRowsOfABlock; i < std::min(rows, (b + 1) * kRowsOfABlock); ++i) {
        const double z = logits[i], e = std::exp(-std::abs(z));
        sums.predicted += (z > 0 ? 1 : e) / (1 + e);
        const double loss = std::log1p(e) + std::max(labels[i] != 0 ? -z : z, 0.0);  // -ln p or -ln(1 - p)
        sums.loss += std::clamp(loss, least, most);
      }
      blocks[static_cast<std::size_t>(b)] = sums;
    }
  });
  Sums all;
  for (const auto& block : blocks) {
    all.predicted += block.predicted;
    all.loss += block.loss;
  }
  return all;
}

/// The AUC where there are both classes. Twice the number of won pairs, ties counting one, is a whole number.
std::optional<double> auc_of(const std::vector<ScoredLabel>& sorted) {
  std::uint64_t won = 0, positives = 0, negatives = 0;
  const auto rows = std::ssize(sorted);
  for (std::int64_t begin = 0; begin < rows;) {
    const auto end = end_of_ties(sorted, begin);
    std::uint64_t ones = 0;
    for (auto i = begin; i < end; ++i) ones += sorted[static_cast<std::size_t>(i)] & 1;
    const auto zeros = static_cast<std::uint64_t>(end - begin) - ones;
    won += ones * (2 * negatives + zeros);
    positives += ones;
    negatives += zeros;
    begin = end;
  }
  if (positives == 0 || negatives == 0) return std::nullopt;
  return static_cast<double>(won) / 2 / static_cast<double>(positives) / static_cast<double>(negatives);
}

double share(double part, std::int64_t all) {
  return all > 0 ? part / static_cast<double>(all) : 0;
}

[[noreturn]] void refuse_one_class(std::int64_t rows, std::int64_t positives) {
  if (rows == 0) throw DataError("AUC: there are no rows; rows of both classes are needed");
  throw DataError(format("AUC: all {} labels are {}; rows of both classes are needed, take more of the data",
                         rows, positives > 0 ? 1 : 0));
}

/// A bin of rows [begin, end) of the sorted ones.
CalibrationBin make_bin(const std::vector<ScoredLabel>& sorted, std::int64_t begin, std::int64_t end) {
  const auto rate = [&](std::int64_t i) { return sigmoid(score_of(sorted[static_cast<std::size_t>(i)])); };
  CalibrationBin bin;
  bin.low = rate(begin);
  bin.high = rate(end - 1);
  bin.rows = end - begin;
  double sum = 0;
  for (auto i = begin; i < end; ++i) {
    sum += rate(i);
    bin.positives += static_cast<std::int64_t>(sorted[static_cast<std::size_t>(i)] & 1);
  }
  bin.predicted = share(sum, bin.rows);
  bin.actual = share(static_cast<double>(bin.positives), bin.rows);
  return bin;
}

/// Where the bin ends that begins at row `begin`.
std::int64_t end_of_bin(const std::vector<ScoredLabel>& sorted, std::int64_t begin, std::int64_t bins,
                        Binning binning) {
  const auto rows = std::ssize(sorted);
  if (binning == Binning::kMass) {
    // the first of the equal cuts that lies behind `begin`, moved to where scores differ
    const auto cut = ((begin * bins / rows + 1) * rows + bins - 1) / bins;
    return cut >= rows ? rows : end_of_ties(sorted, std::max(cut - 1, begin));
  }
  const auto place = [&](ScoredLabel row) {
    return std::min(static_cast<std::int64_t>(sigmoid(score_of(row)) * static_cast<double>(bins)), bins - 1);
  };
  const auto own = place(sorted[static_cast<std::size_t>(begin)]);
  const auto end = std::partition_point(sorted.begin() + begin, sorted.end(),
                                        [&](ScoredLabel row) { return place(row) <= own; });
  return end - sorted.begin();
}

std::vector<CalibrationBin> calibration_of(const std::vector<ScoredLabel>& sorted, std::int64_t bins,
                                           Binning binning) {
  std::vector<CalibrationBin> table;
  for (std::int64_t begin = 0; begin < std::ssize(sorted);) {
    const auto end = end_of_bin(sorted, begin, bins, binning);
    table.push_back(make_bin(sorted, begin, end));
    begin = end;
  }
  return table;
}

/// Buckets of the rows from row `first` on; none for an undefined tensor.
std::vector<std::uint16_t> small_integers(const at::Tensor& buckets, std::int64_t first) {
  if (!buckets.defined()) return {};
  const auto numbers = buckets.to(at::kCPU, at::kLong).contiguous();
  std::vector<std::uint16_t> groups;
  groups.reserve(static_cast<std::size_t>(numbers.numel()));
  for (std::int64_t i = 0; i < numbers.numel(); ++i) {
    const auto bucket = numbers.const_data_ptr<std::int64_t>()[i];
    if (bucket < 0 || bucket >= kBuckets)
      throw Error(format("binary metrics: the bucket of row {} is {}; 0 to {} is needed", first + i, bucket,
                         kBuckets - 1));
    groups.push_back(static_cast<std::uint16_t>(bucket));
  }
  return groups;
}

struct Rows {
  std::vector<float> logits;
  std::vector<std::uint8_t> labels;
};

}  // namespace

double auc(const at::Tensor& scores, const at::Tensor& labels) {
  BinaryScores rows;
  rows.add(scores, labels);
  return rows.auc();
}

double expected_calibration_error(std::span<const CalibrationBin> bins) {
  std::int64_t rows = 0;
  double error = 0;
  for (const auto& bin : bins) {
    rows += bin.rows;
    error += static_cast<double>(bin.rows) * std::abs(bin.predicted - bin.actual);
  }
  return share(error, rows);
}

void BinaryScores::add(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& buckets) {
  check_shape(logits, {-1}, "logits");
  const auto count = logits.size(0);
  check_shape(labels, {count}, "labels");
  if (buckets.defined()) check_shape(buckets, {count}, "buckets");
  if (rows() > 0 && buckets.defined() != (buckets_.size() == logits_.size()))
    throw Error("binary metrics: buckets came with some batches only; give them with all or with none");
  const auto scores = logits.detach().to(at::kCPU, at::kFloat).contiguous();
  const auto truth = labels.detach().to(at::kCPU, at::kFloat).contiguous();
  const auto* const score = scores.const_data_ptr<float>();
  const auto* const label = truth.const_data_ptr<float>();
  for (std::int64_t i = 0; i < count; ++i) {
    if (std::isnan(score[i]))
      throw NumericError(
          format("binary metrics: the score of row {} is NaN; the model has diverged", rows() + i));
    if (label[i] != 0 && label[i] != 1)
      throw DataError(
          format("binary metrics: the label of row {} is {}; 0 or 1 is needed", rows() + i, label[i]));
  }
  const auto groups = small_integers(buckets, rows());
  logits_.insert(logits_.end(), score, score + count);
  labels_.reserve(labels_.size() + static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    labels_.push_back(label[i] != 0 ? 1 : 0);
    positives_ += labels_.back();
  }
  buckets_.insert(buckets_.end(), groups.begin(), groups.end());
}

double BinaryScores::auc() const {
  const auto value = auc_of(sort_by_score(logits_.data(), labels_.data(), rows()));
  if (!value) refuse_one_class(rows(), positives_);
  return *value;
}

double BinaryScores::log_loss() const {
  return share(sum_rows(logits_.data(), labels_.data(), rows()).loss, rows());
}

std::vector<CalibrationBin> BinaryScores::calibration(std::int64_t bins, Binning binning) const {
  if (bins < 1) throw Error(format("calibration in {} bins; at least 1 is needed", bins));
  return calibration_of(sort_by_score(logits_.data(), labels_.data(), rows()), bins, binning);
}

BinaryResults BinaryScores::results() const {
  BinaryResults results;
  results.rows = rows();
  results.positives = positives_;
  const auto sorted = sort_by_score(logits_.data(), labels_.data(), rows());
  const auto area = auc_of(sorted);
  if (!area) refuse_one_class(rows(), positives_);
  results.auc = *area;
  const auto sums = sum_rows(logits_.data(), labels_.data(), rows());
  results.log_loss = share(sums.loss, rows());
  results.predicted = share(sums.predicted, rows());
  results.actual = share(static_cast<double>(positives_), rows());
  results.calibration = results.predicted / results.actual;
  results.calibration_error =
      expected_calibration_error(calibration_of(sorted, kCalibrationBins, Binning::kMass));
  return results;
}

std::vector<BucketResults> BinaryScores::by_bucket() const {
  std::vector<Rows> groups(kBuckets);
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    groups[buckets_[i]].logits.push_back(logits_[i]);
    groups[buckets_[i]].labels.push_back(labels_[i]);
  }
  std::vector<BucketResults> table;
  for (std::int64_t bucket = 0; bucket < kBuckets; ++bucket) {
    const auto& group = groups[static_cast<std::size_t>(bucket)];
    if (group.logits.empty()) continue;
    BucketResults row;
    row.bucket = bucket;
    row.rows = std::ssize(group.logits);
    row.positives = std::count(group.labels.begin(), group.labels.end(), 1);
    row.auc = auc_of(sort_by_score(group.logits.data(), group.labels.data(), row.rows));
    const auto sums = sum_rows(group.logits.data(), group.labels.data(), row.rows);
    row.log_loss = share(sums.loss, row.rows);
    row.predicted = share(sums.predicted, row.rows);
    row.actual = share(static_cast<double>(row.positives), row.rows);
    table.push_back(row);
  }
  return table;
}

}  // namespace stoa::metrics
