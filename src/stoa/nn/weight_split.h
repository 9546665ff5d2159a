#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace stoa::nn {

/// Reaches the processes that hold the other parts of weight matrices (tensor parallelism, arXiv 1909.08053):
/// of a pair of products the first matrix is cut by outputs and the second by inputs, so that one sum is
/// needed forward and one backward.
class WeightExchange {
 public:
  virtual ~WeightExchange() = default;
  virtual std::int64_t part() const = 0;
  virtual std::int64_t parts() const = 0;
  /// x, which all processes have alike, on its way into a pair; its gradient is summed over all.
  virtual at::Tensor spread(const at::Tensor& x) const = 0;
  /// The sum over all processes of what a pair gave, equal to the bit on all; the gradient passes as it is.
  virtual at::Tensor sum(const at::Tensor& y) const = 0;
  /// Sums and maxima over all processes in place, without gradients.
  virtual void add_up(const at::Tensor& values) const = 0;
  virtual void take_maximum(const at::Tensor& values) const = 0;
};

/// The share of `size` rows that a process has: as many as the others, but for the last.
struct RowShare {
  RowShare(std::int64_t size, std::int64_t part, std::int64_t parts)
      : rows((size + parts - 1) / parts),
        first(std::min(part * rows, size)),
        count(std::min(rows, size - first)) {}
  std::int64_t rows;          ///< of all but the last
  std::int64_t first, count;  ///< its own
};

/// How a parameter is cut: `slices` equal ones along `dim`, of each of which every process has its share
/// (RowShare).
struct WeightCut {
  std::int64_t dim = 0;
  std::int64_t slices = 1;
};

/// Implemented by modules that can work with their share of weights.
class SplitsWeights {
 public:
  virtual ~SplitsWeights() = default;
  /// The parameters that are cut, by local name. All others are whole on every process.
  virtual std::map<std::string, WeightCut> cuts() const = 0;
  /// Throws ConfigError where the weights cannot be cut into so many parts.
  virtual void require_parts(std::int64_t parts) const = 0;
  /// From now on the parameters of cuts() are this process's shares; null: they are whole again.
  virtual void use_exchange(std::shared_ptr<const WeightExchange> exchange) = 0;
};

}  // namespace stoa::nn
