#include "stoa/tasks/classification_exhibits.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

namespace stoa {

Exhibit confusion_exhibit(const std::vector<std::int64_t>& counts, const std::vector<std::string>& classes) {
  HeatMapExhibit map;
  map.row_title = "true class";
  map.column_title = "predicted class";
  map.rows = map.columns = classes;
  map.percent = true;
  for (auto row = counts.begin(); row != counts.end(); row += std::ssize(classes)) {
    const auto end = row + std::ssize(classes);
    const auto sum = std::max<std::int64_t>(std::accumulate(row, end, std::int64_t{0}), 1);
    for (auto count = row; count != end; ++count)
      map.values.push_back(static_cast<double>(*count) / static_cast<double>(sum));
  }
  return {"Confusion matrix", "Share of each true class (row) that was given each answer (column).", map};
}

void StatisticsMean::add(const std::vector<nn::NamedTensor>& statistics, std::int64_t samples) {
  for (const auto& item : statistics) {
    const auto value = item.value.detach().to(at::kCPU, at::kDouble) * static_cast<double>(samples);
    const auto found =
        std::find_if(sums_.begin(), sums_.end(), [&](const auto& sum) { return sum.name == item.name; });
    if (found == sums_.end())
      sums_.push_back({item.name, value});
    else
      found->value += value;
  }
  samples_ += samples;
}

std::vector<nn::NamedTensor> StatisticsMean::means() const {
  auto result = sums_;
  for (auto& item : result)
    item.value = item.value / static_cast<double>(std::max<std::int64_t>(samples_, 1));
  return result;
}

}  // namespace stoa
