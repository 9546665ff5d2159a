#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "stoa/nn/outputs.h"
#include "stoa/train/exhibit.h"

namespace stoa {

/// Classes beyond which a confusion matrix cannot be read.
inline constexpr std::int64_t kLargestConfusion = 40;

/// A confusion matrix [classes * classes] of counts, row = true class, as shares of each row.
Exhibit confusion_exhibit(const std::vector<std::int64_t>& counts, const std::vector<std::string>& classes);

/// Means of a model's statistics over batches, weighted by their samples.
class StatisticsMean {
 public:
  void add(const std::vector<nn::NamedTensor>& statistics, std::int64_t samples);
  std::vector<nn::NamedTensor> means() const;

 private:
  std::vector<nn::NamedTensor> sums_;
  std::int64_t samples_ = 0;
};

}  // namespace stoa
