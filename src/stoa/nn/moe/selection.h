#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "stoa/nn/moe/router.h"

// The decisions of a router, without gradients. Internal to nn/moe/ and its tests.
namespace stoa::nn {

/// Consecutive groups of `size` tokens that share one capacity; the last may be smaller. The first lacks the
/// `offset` tokens of it that are elsewhere.
struct RoutingGroups {
  std::int64_t tokens = 0;
  std::int64_t size = 0;
  std::int64_t offset = 0;
  std::int64_t count() const { return (offset + tokens + size - 1) / size; }
  std::int64_t begin(std::int64_t group) const { return std::max(std::int64_t{0}, group * size - offset); }
  std::int64_t end(std::int64_t group) const { return std::min(tokens, (group + 1) * size - offset); }
};

/// Each token's k most probable experts in falling order; equal probabilities go to the lower expert.
/// probabilities [tokens, E] -> [tokens, k] int64.
at::Tensor top_experts(const at::Tensor& probabilities, std::int64_t k);

/// Each assignment's place within its expert and group, counted from 0 in the order of filling, -1 where the
/// place is not below the group's capacity. index [tokens, K]; first_gate [tokens], the first choice's
/// probability; capacity: one number a group, empty for unlimited. kPriority fills choice by choice, tokens
/// by falling first_gate.
at::Tensor fill_slots(const at::Tensor& index, const at::Tensor& first_gate, const RoutingGroups& groups,
                      std::int64_t experts, FillOrder fill, const std::vector<std::int64_t>& capacity);

/// Each expert's `capacity` most probable tokens of every group (all of a smaller group); equal probabilities
/// go to the earlier token. Returns tokens and experts, [assignments] each.
std::pair<at::Tensor, at::Tensor> top_tokens(const at::Tensor& probabilities, const RoutingGroups& groups,
                                             const std::vector<std::int64_t>& capacity);

/// Means over the tokens of each group, all of which are whole: [tokens, E] -> [groups, E]; differentiable.
at::Tensor group_mean(const at::Tensor& values, const RoutingGroups& groups);

/// How often each expert is named in each group, all of which are whole: index [tokens, K] -> [groups, E]
/// int64.
at::Tensor count_by_group(const at::Tensor& index, const RoutingGroups& groups, std::int64_t experts);

/// The same as sorts in ATen: what devices other than the CPU use, and the CPU loops are tested against.
namespace selection_reference {
at::Tensor top_experts(const at::Tensor& probabilities, std::int64_t k);
at::Tensor fill_slots(const at::Tensor& index, const at::Tensor& first_gate, const RoutingGroups& groups,
                      std::int64_t experts, FillOrder fill, const std::vector<std::int64_t>& capacity);
}  // namespace selection_reference

}  // namespace stoa::nn
