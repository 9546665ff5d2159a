#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "stoa/data/tabular/dataset.h"
#include "stoa/metrics/binary.h"
#include "stoa/nn/embedding_tables.h"
#include "stoa/train/exhibit.h"

// What an evaluation of clicks shows beside its numbers.
namespace stoa {

/// Rows by how often the rarest of their ids occurs in the training data: never, 1 to 9 times, 10 to 99 ...
class RarityBuckets {
 public:
  explicit RarityBuckets(const TabularDataset& train);
  /// ids [batch, fields] int32 -> [batch] int64
  at::Tensor of(const at::Tensor& ids) const;
  /// "1 to 9"
  static std::string name(std::int64_t bucket);
  /// "auc_seen_1_to_9"
  static std::string metric(std::int64_t bucket);

 private:
  std::vector<std::vector<std::int64_t>> counts_;  // by field and id
};

/// A table of the buckets and the curve of calibration.
std::vector<Exhibit> score_exhibits(const metrics::BinaryScores& scores, const metrics::BinaryResults& all,
                                    const std::vector<metrics::BucketResults>& buckets);

/// Norms of all embeddings and of the last step's gradients. A pass over the tables.
Exhibit norm_exhibit(nn::EmbeddingTables& tables);

/// The share of the rows in each bin, [bins] fp64; zeros without rows.
at::Tensor shares_of(const nn::NormHistogram& histogram);

}  // namespace stoa
