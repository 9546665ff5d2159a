#include "stoa/data/tabular/zipf.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/random.h"
#include "stoa/data/parallel.h"
#include "stoa/data/tabular/folder.h"
#include "stoa/data/tabular/gather.h"
#include "stoa/data/tabular/hash.h"

namespace stoa {
namespace {

// What a random stream is for.
enum Purpose : std::uint64_t { kEffects = 421, kRow = 422 };
constexpr std::int64_t kRowsAtOnce = 8192;

std::int64_t rows_of(const ZipfOptions& options, TabularSplit split) {
  if (split == TabularSplit::kTrain) return options.train_rows;
  return split == TabularSplit::kValidation ? options.validation_rows : options.test_rows;
}

/// What the ids do to the logit: per field and id a bias, then a latent vector.
class Effects {
 public:
  explicit Effects(const ZipfOptions& options) : options_(options), stride_(options.latent_dim + 1) {
    values_.resize(options.fields * options.ids * stride_);
    for_each_parallel(options.fields, [&](std::int64_t field) {
      RandomStream random(
          mix_seed({static_cast<std::uint64_t>(options_.seed), kEffects, static_cast<std::uint64_t>(field)}));
      float* value = &values_[field * options_.ids * stride_];
      for (std::int64_t id = 0; id < options_.ids; ++id) {
        *value++ = static_cast<float>(options_.bias_deviation * random.normal());
        for (std::int64_t d = 0; d < options_.latent_dim; ++d)
          *value++ = static_cast<float>(options_.latent_deviation * random.normal());
      }
    });
    double sum = 0;
    for (std::int64_t k = 0; k < options.ids; ++k)
      cumulative_.push_back(sum += std::pow(static_cast<double>(k) + options.shift, -options.exponent));
    for (double& share : cumulative_) share /= sum;
  }

  std::uint32_t draw_id(RandomStream& random) const {
    const auto found = std::ranges::upper_bound(cumulative_, random.uniform());
    return static_cast<std::uint32_t>(
        std::min<std::ptrdiff_t>(found - cumulative_.begin(), options_.ids - 1));
  }

  /// Of a row with `ids`; sum of all pairs' dot products = half of (square of the sum - sum of the squares).
  double logit(const std::vector<std::uint32_t>& ids) const {
    double logit = options_.intercept, pairs = 0;
    for (std::int64_t f = 0; f < options_.fields; ++f) logit += effect(f, ids[f])[0];
    for (std::int64_t d = 1; d <= options_.latent_dim; ++d) {
      double sum = 0, squares = 0;
      for (std::int64_t f = 0; f < options_.fields; ++f) {
        const double value = effect(f, ids[f])[d];
        sum += value;
        squares += value * value;
      }
      pairs += (sum * sum - squares) / 2;
    }
    return logit + pairs;
  }

 private:
  const float* effect(std::int64_t field, std::uint32_t id) const {
    return &values_[(field * options_.ids + id) * stride_];
  }

  ZipfOptions options_;
  std::int64_t stride_;
  std::vector<float> values_;
  std::vector<double> cumulative_;
};

class ZipfDataset final : public TabularDataset {
 public:
  ZipfDataset(ZipfOptions options, TabularSplit split) : options_(options), rows_(rows_of(options, split)) {
    options.validate();
    if (rows_ == 0)
      throw ConfigError(format("the made click log has no {0} rows; set {0}_rows", split_name(split)));
    for (std::int64_t f = 0; f < options.fields; ++f)
      schema_.fields.push_back({format("field_{}", f), options.ids, false});
    options.train_rows = options.validation_rows = options.test_rows =
        1;  // the ids mean the same in any number of rows
    Fingerprint fingerprint;
    fingerprint.add("zipf " + write_options(options).dump());
    schema_.vocabulary_hash = fingerprint.text();
    columns_ = fill(split);
    if (split == TabularSplit::kTrain) count(columns_);
  }

  const TabularSchema& schema() const override { return schema_; }
  std::int64_t size() const override { return rows_; }

  Batch rows(std::span<const std::int64_t> numbers) const override {
    std::vector<GatheredRow> rows(numbers.size());
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      if (numbers[i] < 0 || numbers[i] >= rows_)
        throw Error(format("row {} of {}: not within the data", numbers[i], rows_));
      rows[i] = {columns_.data(), static_cast<std::uint32_t>(rows_), static_cast<std::uint32_t>(numbers[i])};
    }
    return gather_rows(rows, schema_.fields.size(), 0);
  }

  std::vector<std::int64_t> frequencies(std::int64_t field) const override {
    if (field < 0 || field >= options_.fields)
      throw Error(format("field {} of {}: not within the data", field, options_.fields));
    if (!counts_.empty()) return counts_[field];
    return ZipfDataset(options_, TabularSplit::kTrain).counts_[field];  // those of the training rows
  }

 private:
  /// Ids field by field, then labels: as blocks of row files lie.
  std::vector<std::uint8_t> fill(TabularSplit split) const {
    const Effects effects(options_);
    std::vector<std::uint8_t> columns(rows_ * (4 * options_.fields + 1));
    auto* ids = reinterpret_cast<std::uint32_t*>(columns.data());
    std::uint8_t* labels = columns.data() + 4 * options_.fields * rows_;
    const auto seed = static_cast<std::uint64_t>(options_.seed);
    for_each_parallel((rows_ + kRowsAtOnce - 1) / kRowsAtOnce, [&](std::int64_t piece) {
      std::vector<std::uint32_t> row(options_.fields);
      const std::int64_t end = std::min(rows_, (piece + 1) * kRowsAtOnce);
      for (std::int64_t i = piece * kRowsAtOnce; i < end; ++i) {
        RandomStream random(
            mix_seed({seed, kRow, static_cast<std::uint64_t>(split), static_cast<std::uint64_t>(i)}));
        for (std::uint32_t& id : row) id = effects.draw_id(random);
        for (std::int64_t f = 0; f < options_.fields; ++f) ids[f * rows_ + i] = row[f];
        labels[i] = random.uniform() < 1 / (1 + std::exp(-effects.logit(row)));
      }
    });
    return columns;
  }

  void count(const std::vector<std::uint8_t>& columns) {
    counts_.assign(options_.fields, std::vector<std::int64_t>(options_.ids));
    const auto* ids = reinterpret_cast<const std::uint32_t*>(columns.data());
    for (std::int64_t f = 0; f < options_.fields; ++f)
      for (std::int64_t i = 0; i < rows_; ++i) ++counts_[f][ids[f * rows_ + i]];
  }

  ZipfOptions options_;
  std::int64_t rows_;
  TabularSchema schema_;
  std::vector<std::uint8_t> columns_;
  std::vector<std::vector<std::int64_t>> counts_;  // of training rows
};

}  // namespace

void ZipfOptions::visit(FieldVisitor& v) {
  v.field("fields", fields, "categorical fields");
  v.field("ids", ids, "ids of each field");
  v.field("exponent", exponent, "an id of rank k is drawn with p ~ (k + shift)^-exponent");
  v.field("shift", shift, "see exponent");
  v.field("intercept", intercept, "logit of a row whose ids have no effect");
  v.field("bias_deviation", bias_deviation, "standard deviation of the ids' biases");
  v.field("latent_deviation", latent_deviation, "standard deviation of the ids' latent vectors");
  v.field("latent_dim", latent_dim, "size of the latent vectors");
  v.field("train_rows", train_rows, "training rows");
  v.field("validation_rows", validation_rows, "validation rows");
  v.field("test_rows", test_rows, "test rows");
  v.field("seed", seed, "of the ids' effects and of the rows");
}

void ZipfOptions::validate() const {
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  const auto within = [](const char* name, std::int64_t value, std::int64_t low, std::int64_t high) {
    if (value < low || value > high)
      throw ConfigError(format("{} = {}: must be {} to {}", name, value, low, high));
  };
  within("fields", fields, 1, 1000);
  within("ids", ids, 1, kMost - 1);
  within("latent_dim", latent_dim, 0, 1000);
  within("train_rows", train_rows, 1, kMost);
  within("validation_rows", validation_rows, 0, kMost);
  within("test_rows", test_rows, 0, kMost);
  within("seed", seed, 0, std::numeric_limits<std::int64_t>::max());
  if (!(shift > 0) || !std::isfinite(exponent) || !std::isfinite(shift))
    throw ConfigError(format("exponent = {}, shift = {}: finite numbers, and a shift above 0, are needed",
                             exponent, shift));
  if (!(bias_deviation >= 0) || !(latent_deviation >= 0) ||
      !std::isfinite(intercept + bias_deviation + latent_deviation))
    throw ConfigError("intercept and deviations must be finite, and deviations not negative");
}

std::shared_ptr<const TabularDataset> make_zipf_dataset(const ZipfOptions& options, TabularSplit split) {
  return std::make_shared<const ZipfDataset>(options, split);
}

}  // namespace stoa
