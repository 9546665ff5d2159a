#include "stoa/nn/moe/selection.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <numeric>

namespace stoa::nn {

namespace {

// The k largest of `count` values in falling order, earlier ones first among equals. Each is the largest of
// those behind its predecessor in that order, so nothing needs to be marked as taken.
template <class T>
void select_top(const T* values, std::int64_t count, std::int64_t k, std::int64_t* out) {
  for (std::int64_t i = 0; i < k; ++i) {
    std::int64_t best = -1;
    for (std::int64_t j = 0; j < count; ++j) {
      const bool open =
          i == 0 || values[j] < values[out[i - 1]] || (values[j] == values[out[i - 1]] && j > out[i - 1]);
      if (open && (best < 0 || values[j] > values[best])) best = j;
    }
    out[i] = best;
  }
}

// Fills the experts of one group; `order` names its tokens in the order they are served.
struct GroupFill {
  const std::int64_t* index;
  std::int64_t* slot;
  std::int64_t k;
  std::int64_t capacity;               // negative for unlimited
  std::vector<std::int64_t> occupied;  // [experts]

  void place(std::int64_t token, std::int64_t choice) {
    const auto at = token * k + choice;
    const auto next = occupied[static_cast<std::size_t>(index[at])]++;
    slot[at] = capacity >= 0 && next >= capacity ? -1 : next;
  }
  void run(FillOrder fill, const std::vector<std::int64_t>& order) {
    if (fill == FillOrder::kToken) {
      for (const auto token : order)
        for (std::int64_t choice = 0; choice < k; ++choice) place(token, choice);
    } else {
      for (std::int64_t choice = 0; choice < k; ++choice)
        for (const auto token : order) place(token, choice);
    }
  }
};

at::Tensor stable_order(const at::Tensor& keys, bool descending = false) {
  return std::get<1>(at::sort(keys, /*stable=*/true, /*dim=*/0, descending));
}

}  // namespace

at::Tensor top_experts(const at::Tensor& probabilities, std::int64_t k) {
  if (!probabilities.is_cpu()) return selection_reference::top_experts(probabilities, k);
  const auto values = probabilities.contiguous();
  const auto tokens = values.size(0);
  const auto experts = values.size(1);
  const auto index = at::empty({tokens, k}, values.options().dtype(at::kLong));
  auto* out = index.mutable_data_ptr<std::int64_t>();
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "top_experts", [&] {
    const auto* in = values.const_data_ptr<scalar_t>();
    at::parallel_for(0, tokens, 4096, [&](std::int64_t begin, std::int64_t end) {
      for (auto n = begin; n < end; ++n) select_top(in + n * experts, experts, k, out + n * k);
    });
  });
  return index;
}

at::Tensor fill_slots(const at::Tensor& index, const at::Tensor& first_gate, const RoutingGroups& groups,
                      std::int64_t experts, FillOrder fill, const std::vector<std::int64_t>& capacity) {
  if (!index.is_cpu())
    return selection_reference::fill_slots(index, first_gate, groups, experts, fill, capacity);
  const auto choices = index.contiguous();
  const auto slot = at::empty_like(choices);
  const auto gate_host = first_gate.to(at::kDouble).contiguous();
  const auto* gate = gate_host.const_data_ptr<double>();
  for (std::int64_t g = 0; g < groups.count(); ++g) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(groups.end(g) - groups.begin(g)));
    std::iota(order.begin(), order.end(), groups.begin(g));
    if (fill == FillOrder::kPriority)
      std::ranges::stable_sort(order, [&](std::int64_t a, std::int64_t b) { return gate[a] > gate[b]; });
    GroupFill{choices.const_data_ptr<std::int64_t>(), slot.mutable_data_ptr<std::int64_t>(), choices.size(1),
              capacity.empty() ? -1 : capacity[static_cast<std::size_t>(g)],
              std::vector<std::int64_t>(static_cast<std::size_t>(experts), 0)}
        .run(fill, order);
  }
  return slot;
}

std::pair<at::Tensor, at::Tensor> top_tokens(const at::Tensor& probabilities, const RoutingGroups& groups,
                                             const std::vector<std::int64_t>& capacity) {
  const auto experts =
      at::arange(probabilities.size(1), probabilities.options().dtype(at::kLong)).unsqueeze(1);
  std::vector<at::Tensor> token;
  std::vector<at::Tensor> expert;
  for (std::int64_t g = 0; g < groups.count(); ++g) {
    const auto own = probabilities.slice(0, groups.begin(g), groups.end(g));
    const auto taken = std::min(capacity[static_cast<std::size_t>(g)], own.size(0));
    const auto best = stable_order(own, /*descending=*/true).narrow(0, 0, taken).t();  // [E, taken]
    token.push_back(best.flatten() + groups.begin(g));
    expert.push_back(experts.expand_as(best).flatten());
  }
  return {at::cat(token), at::cat(expert)};
}

at::Tensor group_mean(const at::Tensor& values, const RoutingGroups& groups) {
  const auto whole = groups.tokens / groups.size;
  const auto covered = whole * groups.size;
  std::vector<at::Tensor> parts;
  if (whole > 0)
    parts.push_back(values.narrow(0, 0, covered).view({whole, groups.size, values.size(1)}).mean(1));
  if (covered < groups.tokens) parts.push_back(values.slice(0, covered).mean(0, /*keepdim=*/true));
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

at::Tensor count_by_group(const at::Tensor& index, const RoutingGroups& groups, std::int64_t experts) {
  auto key = index;
  if (groups.count() > 1)
    key = key + at::arange(groups.tokens, index.options()).floor_divide(groups.size).unsqueeze(1) * experts;
  return at::bincount(key.flatten(), {}, groups.count() * experts).view({groups.count(), experts});
}

namespace selection_reference {

at::Tensor top_experts(const at::Tensor& probabilities, std::int64_t k) {
  return std::get<1>(at::sort(probabilities, /*stable=*/true, /*dim=*/1, /*descending=*/true))
      .narrow(1, 0, k)
      .contiguous();
}

at::Tensor fill_slots(const at::Tensor& index, const at::Tensor& first_gate, const RoutingGroups& groups,
                      std::int64_t experts, FillOrder fill, const std::vector<std::int64_t>& capacity) {
  const auto k = index.size(1);
  const auto numbers = at::arange(index.numel(), index.options());
  const auto group = (numbers + k * groups.offset).floor_divide(k * groups.size);
  auto order = numbers;  // assignments (token * K + choice) as they are served
  if (fill != FillOrder::kToken) {
    if (fill == FillOrder::kPriority)
      order = numbers.view_as(index).index_select(0, stable_order(first_gate, /*descending=*/true)).flatten();
    order = order.index_select(0, stable_order((group * k + numbers.remainder(k)).index_select(0, order)));
  }
  const auto key = (group * experts + index.flatten()).index_select(0, order);
  const auto by_expert = stable_order(key);
  const auto first = at::bincount(key, {}, groups.count() * experts).cumsum(0);
  const auto sorted_key = key.index_select(0, by_expert);
  const auto start = at::cat({first.new_zeros(1), first}).index_select(0, sorted_key);
  auto slot = at::empty_like(numbers).index_copy_(0, order.index_select(0, by_expert), numbers - start);
  if (!capacity.empty())
    slot = slot.masked_fill(slot.ge(at::tensor(capacity, slot.options()).index_select(0, group)), -1);
  return slot.view_as(index);
}

}  // namespace selection_reference

}  // namespace stoa::nn
