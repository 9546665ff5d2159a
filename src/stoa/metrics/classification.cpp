#include "stoa/metrics/classification.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "stoa/base/errors.h"
#include "stoa/tensor/shape.h"

namespace stoa::metrics {

ClassificationCounts::ClassificationCounts(std::int64_t classes, std::int64_t top_k)
    : classes_(classes),
      top_k_(std::min(top_k, classes)),
      confusion_(static_cast<std::size_t>(classes * classes), 0) {
  if (classes < 1 || top_k < 1) throw Error("classification metrics need at least one class and k >= 1");
}

void ClassificationCounts::add(const at::Tensor& logits, const at::Tensor& labels) {
  check_shape(logits, {-1, classes_}, "logits");
  check_shape(labels, {logits.size(0)}, "labels");
  const at::Tensor scores = logits.detach().to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor truth = labels.to(at::kCPU, at::kLong).contiguous();
  loss_sum_ += at::nll_loss(at::log_softmax(scores, 1), truth, {}, at::Reduction::Sum).item<double>();
  const double* row = scores.const_data_ptr<double>();
  const std::int64_t* label = truth.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < scores.size(0); ++i, row += classes_) {
    const std::int64_t best = std::max_element(row, row + classes_) - row;
    // the label's rank: classes ahead of it, ties resolved for the lower index
    const double own = row[label[i]];
    std::int64_t ahead = 0;
    for (std::int64_t j = 0; j < classes_; ++j) ahead += row[j] > own || (row[j] == own && j < label[i]);
    correct_ += best == label[i];
    in_top_k_ += ahead < top_k_;
    ++confusion_[static_cast<std::size_t>(label[i] * classes_ + best)];
  }
  samples_ += scores.size(0);
}

namespace {
double mean(double sum, std::int64_t count) {
  return count > 0 ? sum / static_cast<double>(count) : 0;
}
}  // namespace

double ClassificationCounts::accuracy() const {
  return mean(static_cast<double>(correct_), samples_);
}
double ClassificationCounts::top_k_accuracy() const {
  return mean(static_cast<double>(in_top_k_), samples_);
}
double ClassificationCounts::negative_log_likelihood() const {
  return mean(loss_sum_, samples_);
}

}  // namespace stoa::metrics
