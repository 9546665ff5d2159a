#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "stoa/nn/moe/expert_exchange.h"
#include "stoa/nn/moe/selection.h"

// A router's decisions on a batch of which several processes have parts. Internal to nn/moe/ and its tests.
namespace stoa::nn {

/// The tokens of a whole batch, of which this process has those from first() on. Every process makes the same
/// calls. What is decided here is what one process with all tokens would decide.
class JointTokens {
 public:
  /// This process has `tokens`, on `device`; `group` of the whole's consecutive tokens share one capacity, or
  /// 0: all. `finite` says whether this process's gates are.
  JointTokens(const ExpertExchange& exchange, std::int64_t tokens, std::int64_t group, bool finite,
              at::Device device);

  /// Whether every process's gates are finite.
  bool finite() const { return finite_; }
  /// Whether some group has tokens of several processes. If not, each process can route its own alone.
  bool share_groups() const;
  std::int64_t first() const { return first_; }
  /// The groups of all tokens; those that this process has tokens of, the first perhaps in part.
  const RoutingGroups& all() const { return all_; }
  const RoutingGroups& own() const { return own_; }

  /// `values` [tokens, ...] of all processes: [all tokens, ...]; no gradient.
  at::Tensor gather(const at::Tensor& values) const;
  /// How often each expert is named by the processes' k-th choices: index [tokens, K] -> [parts, groups, K,
  /// E] int64.
  at::Tensor count_choices(const at::Tensor& index, std::int64_t experts) const;
  /// fill_slots() of this process's tokens among all; `counts` are count_choices(index).
  at::Tensor fill_slots(const at::Tensor& index, const at::Tensor& first_gate, const at::Tensor& counts,
                        FillOrder fill, const std::vector<std::int64_t>& capacity) const;
  /// group_mean() over all tokens: [tokens, n] -> [groups, n]. Differentiable: every process's losses are
  /// taken for shares of one sum.
  at::Tensor group_mean(const at::Tensor& values) const;
  /// The mean over all tokens from those by group: [groups, n] -> [n].
  at::Tensor mean(const at::Tensor& by_group) const;

 private:
  at::Tensor group_of_own() const;  // [tokens] int64, counted among all groups
  at::Tensor group_sizes(const at::TensorOptions& options) const;

  const ExpertExchange& exchange_;
  at::Device device_;
  std::vector<std::int64_t> tokens_;  // by part
  std::int64_t first_ = 0;
  RoutingGroups all_, own_;
  bool finite_ = true;
};

}  // namespace stoa::nn
