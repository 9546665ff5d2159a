#include "stoa/tasks/click_exhibits.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "stoa/base/format.h"
#include "stoa/base/text.h"

namespace stoa {

namespace {

constexpr std::array<std::int64_t, 5> kLowest = {0, 1, 10, 100, 1000};
constexpr std::int64_t kGrain = 1024;  // rows that are worth a thread

/// The middle of a bin as a power of ten; the ends stand half a bin beyond their edges.
double place_of(const nn::NormHistogram& histogram, std::size_t bin) {
  constexpr double kHalf = 0.25;
  if (bin == 0) return std::log10(histogram.edges[1]) - kHalf;
  return std::log10(histogram.edges[bin]) + kHalf;
}

LinesExhibit::Line line_of(const std::string& name, const nn::NormHistogram& histogram) {
  LinesExhibit::Line line{name, {}, {}};
  const auto& rows = histogram.rows;
  const auto filled = [](std::int64_t count) { return count > 0; };
  const auto first = std::ranges::find_if(rows, filled) - rows.begin();
  const auto end = rows.rend() - std::find_if(rows.rbegin(), rows.rend(), filled);
  const auto shares = shares_of(histogram);
  for (auto bin = first; bin < end; ++bin) {
    line.x.push_back(place_of(histogram, static_cast<std::size_t>(bin)));
    line.y.push_back(shares[bin].item<double>());
  }
  return line;
}

TableExhibit bucket_table(const metrics::BinaryResults& all,
                          const std::vector<metrics::BucketResults>& buckets) {
  TableExhibit table;
  table.headings = {"rarest id's rows in training", "rows", "click rate", "predicted", "AUC", "log loss"};
  const auto add = [&](const std::string& name, const auto& found, std::optional<double> auc) {
    table.rows.push_back({name, thousands(found.rows), format("{:.4f}", found.actual),
                          format("{:.4f}", found.predicted), auc ? format("{:.4f}", *auc) : "-",
                          format("{:.4f}", found.log_loss)});
  };
  for (const auto& bucket : buckets) add(RarityBuckets::name(bucket.bucket), bucket, bucket.auc);
  add("all", all, all.auc);
  return table;
}

}  // namespace

RarityBuckets::RarityBuckets(const TabularDataset& train) {
  for (std::int64_t field = 0; field < std::ssize(train.schema().fields); ++field)
    counts_.push_back(train.frequencies(field));
}

at::Tensor RarityBuckets::of(const at::Tensor& ids) const {
  const auto buckets = at::empty({ids.size(0)}, at::kLong);
  const auto table = ids.accessor<std::int32_t, 2>();
  auto* const to = buckets.mutable_data_ptr<std::int64_t>();
  at::parallel_for(0, ids.size(0), kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (auto row = begin; row < end; ++row) {
      std::int64_t rarest = std::numeric_limits<std::int64_t>::max();
      for (std::size_t field = 0; field < counts_.size(); ++field)
        rarest = std::min(
            rarest,
            counts_[field].at(static_cast<std::size_t>(table[row][static_cast<std::int64_t>(field)])));
      to[row] = std::ranges::upper_bound(kLowest, rarest) - kLowest.begin() - 1;
    }
  });
  return buckets;
}

std::string RarityBuckets::name(std::int64_t bucket) {
  const auto i = static_cast<std::size_t>(bucket);
  if (i == 0) return "0";
  if (i + 1 == kLowest.size()) return format("{} or more", kLowest[i]);
  return format("{} to {}", kLowest[i], kLowest[i + 1] - 1);
}

std::string RarityBuckets::metric(std::int64_t bucket) {
  auto words = name(bucket);
  std::ranges::replace(words, ' ', '_');
  return "auc_seen_" + words;
}

std::vector<Exhibit> score_exhibits(const metrics::BinaryScores& scores, const metrics::BinaryResults& all,
                                    const std::vector<metrics::BucketResults>& buckets) {
  LinesExhibit lines;
  lines.x_title = "predicted click rate";
  lines.y_title = "click rate";
  LinesExhibit::Line line{"rows by predicted rate, 20 groups of equal size", {}, {}}, equal{"equal", {}, {}};
  for (const auto& bin : scores.calibration()) {
    line.x.push_back(bin.predicted);
    line.y.push_back(bin.actual);
  }
  equal.x = equal.y = {line.x.front(), line.x.back()};
  lines.lines = {line, equal};
  return {{"Rows by their rarest id",
           "How well rows are ranked whose rarest id occurs so often in the training data.",
           bucket_table(all, buckets)},
          {"Calibration", "What was predicted, and what came of it.", lines}};
}

Exhibit norm_exhibit(nn::EmbeddingTables& tables) {
  auto weights = tables.weight_norms(0);
  for (std::int64_t field = 1; field < std::ssize(tables.sizes()); ++field)
    std::ranges::transform(weights.rows, tables.weight_norms(field).rows, weights.rows.begin(),
                           std::plus<>());
  LinesExhibit lines;
  lines.x_title = "norm, as a power of ten";
  lines.y_title = "share of rows";
  lines.lines = {line_of("embeddings", weights)};
  if (auto gradients = line_of("gradients of the last step", tables.gradient_norms()); !gradients.x.empty())
    lines.lines.push_back(std::move(gradients));
  return {
      "Norms of embeddings",
      "All rows of the tables, and the gradients (L2 included, before the clip) of the rows that the last "
      "step touched; two points to a power of ten, the first of them for all below 1e-8.",
      lines};
}

at::Tensor shares_of(const nn::NormHistogram& histogram) {
  const auto rows = at::tensor(histogram.rows, at::kLong).to(at::kDouble);
  return rows / rows.sum().clamp_min(1);
}

}  // namespace stoa
