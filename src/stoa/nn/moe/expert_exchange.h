#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace stoa::nn {

/// Reaches the tokens that other processes route, and the experts that they hold. Every process makes the
/// same calls in the same order, in backward passes too. Nothing here is differentiable.
class ExpertExchange {
 public:
  /// Rows for, or from, each holder.
  using Counts = std::vector<std::int64_t>;
  virtual ~ExpertExchange() = default;

  /// Processes whose training batches are parts of one whose tokens are routed together, in the order of
  /// parts; 1: this process routes its own alone.
  virtual std::int64_t parts() const = 0;
  virtual std::int64_t part() const = 0;
  /// Every part's `values`, of one shape: [parts, ...].
  virtual at::Tensor gather(const at::Tensor& values) const = 0;

  /// Processes among which the experts are dealt out: of E experts, holder h has those from h E / holders on.
  virtual std::int64_t holders() const = 0;
  virtual std::int64_t holder() const = 0;
  /// rows [sum of send, ...], those for holder 0 first: send[h] of them go to holder h, receive[h] come from
  /// it.
  virtual at::Tensor trade(const at::Tensor& rows, const Counts& send, const Counts& receive) const = 0;
};

}  // namespace stoa::nn
