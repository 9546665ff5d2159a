#pragma once

#include <string>
#include <utility>
#include <vector>

#include "stoa/base/json.h"

namespace stoa {

/// Named numbers in a fixed order: what an evaluation or a training step reports.
class Metrics {
 public:
  Metrics() = default;
  Metrics(std::initializer_list<std::pair<std::string, double>> items) : items_(items) {}

  void set(const std::string& name, double value);
  bool has(const std::string& name) const;
  /// Throws Error naming the metric and the ones there are.
  double operator[](const std::string& name) const;
  const std::vector<std::pair<std::string, double>>& items() const { return items_; }
  Json to_json() const;
  static Metrics from_json(const Json& json);
  /// "accuracy 0.8731, loss 0.412"
  std::string text() const;

 private:
  std::vector<std::pair<std::string, double>> items_;
};

}  // namespace stoa
