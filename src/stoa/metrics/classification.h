#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace stoa::metrics {

/// Counts over a classification test set: top-1 and top-k accuracy, mean negative log-likelihood, confusion
/// matrix. Every sample counts once, the last partial batch included.
class ClassificationCounts {
 public:
  /// `top_k` is the k of the second accuracy (at most `classes`).
  ClassificationCounts(std::int64_t classes, std::int64_t top_k);

  /// logits [b, classes] of any floating dtype, labels [b] int64. Ties count for the lowest class.
  void add(const at::Tensor& logits, const at::Tensor& labels);

  std::int64_t samples() const { return samples_; }
  double accuracy() const;                 ///< share of samples whose largest logit is the label's
  double top_k_accuracy() const;           ///< share of samples whose label is among the k largest logits
  double negative_log_likelihood() const;  ///< mean, in nats
  /// [classes * classes] counts, row = true class, column = predicted class.
  const std::vector<std::int64_t>& confusion() const { return confusion_; }

 private:
  std::int64_t classes_, top_k_, samples_ = 0, correct_ = 0, in_top_k_ = 0;
  double loss_sum_ = 0;
  std::vector<std::int64_t> confusion_;
};

}  // namespace stoa::metrics
