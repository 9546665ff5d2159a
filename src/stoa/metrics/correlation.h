#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace stoa::metrics {

/// Pearson's correlation, in two passes over doubles; 0 where either side is constant or there are fewer than
/// two pairs. Throws NumericError for a number that is not finite, Error for spans of unlike length.
double pearson(std::span<const double> x, std::span<const double> y);

/// Spearman's correlation: Pearson's of the ranks, ties sharing the mean of theirs.
double spearman(std::span<const double> x, std::span<const double> y);

/// Ranks from 1, ties sharing the mean of theirs.
std::vector<double> average_ranks(std::span<const double> values);

/// Matthews' correlation of a confusion matrix [classes * classes], row = true class, column = predicted one:
/// (tp tn - fp fn) / sqrt((tp+fp)(tp+fn)(tn+fp)(tn+fn)) for two classes, Gorodkin's R_K for more. 0 where all
/// predictions or all labels are alike.
double matthews(std::span<const std::int64_t> confusion, std::int64_t classes);

/// F1 of one class against all others: 2 tp / (2 tp + fp + fn), 0 where that is 0 / 0.
double f1(std::span<const std::int64_t> confusion, std::int64_t classes, std::int64_t positive);

}  // namespace stoa::metrics
