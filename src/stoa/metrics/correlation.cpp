#include "stoa/metrics/correlation.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa::metrics {
namespace {

double mean(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

void check_pairs(std::span<const double> x, std::span<const double> y) {
  if (x.size() != y.size())
    throw Error(format("correlation of {} values with {}; as many are needed", x.size(), y.size()));
  for (const auto values : {x, y})
    for (std::size_t i = 0; i < values.size(); ++i)
      if (!std::isfinite(values[i]))
        throw NumericError(format("correlation: value {} is {}; the model has diverged", i, values[i]));
}

void check_matrix(std::span<const std::int64_t> confusion, std::int64_t classes) {
  if (classes < 1 || std::ssize(confusion) != classes * classes)
    throw Error(format("a confusion matrix of {} counts for {} classes", confusion.size(), classes));
}

}  // namespace

double pearson(std::span<const double> x, std::span<const double> y) {
  check_pairs(x, y);
  if (x.size() < 2) return 0;
  const double mean_x = mean(x), mean_y = mean(y);
  double xy = 0, xx = 0, yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double dx = x[i] - mean_x, dy = y[i] - mean_y;
    xy += dx * dy;
    xx += dx * dx;
    yy += dy * dy;
  }
  // of values that are alike the mean may still round away from them, so they are compared themselves
  const auto constant = [](std::span<const double> values) {
    return std::ranges::all_of(values, [&](double value) { return value == values.front(); });
  };
  if (xx == 0 || yy == 0 || constant(x) || constant(y)) return 0;
  return std::clamp(xy / (std::sqrt(xx) * std::sqrt(yy)), -1.0, 1.0);
}

std::vector<double> average_ranks(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return values[i]; });
  std::vector<double> ranks(values.size());
  for (std::size_t begin = 0; begin < order.size();) {
    std::size_t end = begin;
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    const double rank = static_cast<double>(begin + 1 + end) / 2;  // of begin + 1 to end
    for (auto i = begin; i < end; ++i) ranks[order[i]] = rank;
    begin = end;
  }
  return ranks;
}

double spearman(std::span<const double> x, std::span<const double> y) {
  check_pairs(x, y);
  return pearson(average_ranks(x), average_ranks(y));
}

double matthews(std::span<const std::int64_t> confusion, std::int64_t classes) {
  check_matrix(confusion, classes);
  // with s samples, c right ones, t_k of class k and p_k predictions of it:
  // (c s - sum t p) / sqrt((s^2 - sum p^2)(s^2 - sum t^2))
  double samples = 0, right = 0, tp = 0, pp = 0, tt = 0;
  for (std::int64_t k = 0; k < classes; ++k) {
    double of_class = 0, predicted = 0;
    for (std::int64_t j = 0; j < classes; ++j) {
      of_class += static_cast<double>(confusion[static_cast<std::size_t>(k * classes + j)]);
      predicted += static_cast<double>(confusion[static_cast<std::size_t>(j * classes + k)]);
    }
    right += static_cast<double>(confusion[static_cast<std::size_t>(k * classes + k)]);
    samples += of_class;
    tp += of_class * predicted;
    pp += predicted * predicted;
    tt += of_class * of_class;
  }
  const double spread_of_predictions = samples * samples - pp, spread_of_labels = samples * samples - tt;
  if (spread_of_predictions <= 0 || spread_of_labels <= 0) return 0;
  return (right * samples - tp) / (std::sqrt(spread_of_predictions) * std::sqrt(spread_of_labels));
}

double f1(std::span<const std::int64_t> confusion, std::int64_t classes, std::int64_t positive) {
  check_matrix(confusion, classes);
  std::int64_t of_class = 0, predicted = 0;
  for (std::int64_t j = 0; j < classes; ++j) {
    of_class += confusion[static_cast<std::size_t>(positive * classes + j)];
    predicted += confusion[static_cast<std::size_t>(j * classes + positive)];
  }
  const auto right = confusion[static_cast<std::size_t>(positive * classes + positive)];
  return of_class + predicted == 0
             ? 0
             : 2 * static_cast<double>(right) / static_cast<double>(of_class + predicted);
}

}  // namespace stoa::metrics
