#include "stoa/nn/moe/joint_routing.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <numeric>

namespace stoa::nn {
namespace {

/// The sum over all parts. Each part's loss may depend on it, so that gradients are sums likewise.
class SumFunction : public torch::autograd::Function<SumFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& values,
                            const ExpertExchange* exchange) {
    // who made the graph keeps the exchange: it belongs to the model
    context->saved_data["exchange"] = reinterpret_cast<std::int64_t>(exchange);
    return exchange->gather(values.detach()).sum(0);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto* const exchange =
        reinterpret_cast<const ExpertExchange*>(context->saved_data["exchange"].toInt());
    return {exchange->gather(grads[0]).sum(0), {}};
  }
};

}  // namespace

JointTokens::JointTokens(const ExpertExchange& exchange, std::int64_t tokens, std::int64_t group, bool finite,
                         at::Device device)
    : exchange_(exchange), device_(device) {
  const auto own = at::tensor({tokens, std::int64_t{finite}}, at::kLong).to(device);
  const auto parts = exchange.gather(own).cpu();
  for (const auto& part : parts.unbind(0)) {
    tokens_.push_back(part[0].item<std::int64_t>());
    finite_ = finite_ && part[1].item<std::int64_t>() != 0;
  }
  first_ = std::accumulate(tokens_.begin(), tokens_.begin() + exchange.part(), std::int64_t{0});
  const auto total = std::accumulate(tokens_.begin(), tokens_.end(), std::int64_t{0});
  all_ = {total, group == 0 ? total : std::min(group, total)};
  own_ = {tokens, all_.size, first_ % all_.size};
}

bool JointTokens::share_groups() const {
  return std::ranges::any_of(tokens_, [&](std::int64_t tokens) { return tokens % all_.size != 0; });
}

at::Tensor JointTokens::gather(const at::Tensor& values) const {
  auto sizes = values.sizes().vec();
  sizes[0] = std::ranges::max(tokens_);  // a gather wants one shape
  const auto filled = at::zeros(sizes, values.options().requires_grad(false));
  filled.narrow(0, 0, values.size(0)).copy_(values.detach());
  const auto gathered = exchange_.gather(filled);
  std::vector<at::Tensor> parts;
  for (std::size_t i = 0; i < tokens_.size(); ++i)
    parts.push_back(gathered[static_cast<std::int64_t>(i)].narrow(0, 0, tokens_[i]));
  return at::cat(parts);
}

at::Tensor JointTokens::group_of_own() const {
  return at::arange(first_, first_ + own_.tokens, at::TensorOptions(device_).dtype(at::kLong))
      .floor_divide(all_.size);
}

at::Tensor JointTokens::group_sizes(const at::TensorOptions& options) const {
  auto sizes = at::full({all_.count()}, static_cast<double>(all_.size), options);
  sizes[-1].fill_(static_cast<double>(all_.end(all_.count() - 1) - all_.begin(all_.count() - 1)));
  return sizes;
}

at::Tensor JointTokens::count_choices(const at::Tensor& index, std::int64_t experts) const {
  const auto k = index.size(1);
  const auto choice = group_of_own().unsqueeze(1) * k + at::arange(k, index.options());
  const auto counts = at::bincount((choice * experts + index).flatten(), {}, all_.count() * k * experts);
  return exchange_.gather(counts).view({-1, all_.count(), k, experts});
}

at::Tensor JointTokens::fill_slots(const at::Tensor& index, const at::Tensor& first_gate,
                                   const at::Tensor& counts, FillOrder fill,
                                   const std::vector<std::int64_t>& capacity) const {
  const auto k = index.size(1), experts = counts.size(3);
  if (fill == FillOrder::kPriority)  // in the order of everybody's gates
    return nn::fill_slots(gather(index), gather(first_gate), all_, experts, fill, capacity)
        .narrow(0, first_, own_.tokens);
  // in front of this process's tokens come those of earlier ones and, choice by choice, everybody's earlier
  // choices
  const auto mine = counts[exchange_.part()];  // [groups, K, E]
  auto before = counts.narrow(0, 0, exchange_.part()).sum(0);
  if (fill == FillOrder::kChoice) {
    const auto others = counts.sum(0) - mine;
    before = before + others.cumsum(1) - others;
  } else {
    before = before.sum(1, /*keepdim=*/true).expand_as(mine);
  }
  const auto group = group_of_own().unsqueeze(1);
  const auto place = (group * k + at::arange(k, index.options())) * experts + index;
  auto slot = nn::fill_slots(index, first_gate, own_, experts, fill, {}) +
              before.reshape({-1}).index_select(0, place.flatten()).view_as(index);
  if (!capacity.empty())
    slot = slot.masked_fill(
        slot.ge(at::tensor(capacity, index.options()).index_select(0, group.flatten()).unsqueeze(1)), -1);
  return slot;
}

at::Tensor JointTokens::group_mean(const at::Tensor& values) const {
  const auto sums =
      all_.count() == 1
          ? values.sum(0, /*keepdim=*/true)
          : at::zeros({all_.count(), values.size(1)}, values.options()).index_add(0, group_of_own(), values);
  return SumFunction::apply(sums, &exchange_) / group_sizes(values.options()).unsqueeze(1);
}

at::Tensor JointTokens::mean(const at::Tensor& by_group) const {
  return (by_group * group_sizes(by_group.options()).unsqueeze(1)).sum(0) / static_cast<double>(all_.tokens);
}

}  // namespace stoa::nn
