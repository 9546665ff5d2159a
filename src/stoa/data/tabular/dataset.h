#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "stoa/data/batch.h"
#include "stoa/data/loader.h"
#include "stoa/data/tabular/schema.h"

namespace stoa {

/// Rows of categorical ids, numbers and a label of 0 or 1: prepared files mapped into memory, or generated.
class TabularDataset {
 public:
  virtual ~TabularDataset() = default;
  virtual const TabularSchema& schema() const = 0;
  virtual std::int64_t size() const = 0;
  /// Rows by number: `ids` [n, fields] int32, `numerics` [n, numerics] fp32, `labels` [n] fp32. Thread-safe.
  virtual Batch rows(std::span<const std::int64_t> numbers) const = 0;
  /// How often each id of a field occurs in the training rows; counts[id].
  virtual std::vector<std::int64_t> frequencies(std::int64_t field) const = 0;
};

/// Opens a folder that `stoa data prepare` made. Throws DataError, naming file and place, for one that is
/// truncated, altered or unfinished; ConfigError where it has no such split.
std::shared_ptr<const TabularDataset> open_tabular_dataset(const std::filesystem::path& folder,
                                                           TabularSplit split);

/// Training batches: every row once an epoch, in an order fixed by the seed, blocks and rows shuffled.
std::unique_ptr<BatchSource> train_tabular_batches(std::shared_ptr<const TabularDataset> dataset,
                                                   const BatchPlan& plan);
/// Every row once, in order.
std::unique_ptr<BatchSource> test_tabular_batches(std::shared_ptr<const TabularDataset> dataset,
                                                  const BatchPlan& plan);

}  // namespace stoa
