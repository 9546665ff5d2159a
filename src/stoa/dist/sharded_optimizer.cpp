#include "stoa/dist/sharded_optimizer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/dist/shards.h"
#include "stoa/tensor/shape.h"

namespace stoa::dist {
namespace {

std::vector<nn::NamedParameter> trainable(std::vector<nn::NamedParameter> parameters) {
  std::erase_if(parameters, [](const nn::NamedParameter& p) { return !p.tensor.requires_grad(); });
  return parameters;
}

at::Tensor shard_of_parameter(const nn::NamedParameter& parameter, const Group& group) {
  if (!parameter.tensor.is_contiguous())
    throw ShapeError(
        format("parameter `{}` of shape {} has strides {}; only contiguous ones can be shared "
               "out: set `parallel.zero` to 0",
               parameter.name, shape_text(parameter.tensor.sizes()), shape_text(parameter.tensor.strides())));
  return shard_of(parameter.tensor, group.rank(), group.size());
}

/// Adds up sums over the group, then over `also`.
optim::SumOverParts sum_over(Group& group, const at::Device& device, optim::SumOverParts also) {
  return [&group, device, also = std::move(also)](std::vector<double>& sums) {
    const auto all = at::tensor(sums, at::kDouble).to(device);
    group.all_reduce(all);
    const auto on_host = all.cpu();
    std::copy_n(on_host.const_data_ptr<double>(), sums.size(), sums.begin());
    if (also) also(sums);
  };
}

}  // namespace

ShardedOptimizer::ShardedOptimizer(std::vector<nn::NamedParameter> parameters,
                                   const optim::OptimizerOptions& options, Group& group,
                                   optim::SumOverParts also, const GatheredWeights* weights)
    : Optimizer(trainable(std::move(parameters))),
      group_(group),
      gathers_(weights == nullptr || !weights->is_shared()) {
  std::vector<optim::PartialParameter> parts;
  for (const auto& parameter : parameters_) {
    places_.emplace(parameter.name, shards_.size());
    shards_.push_back(gathers_ ? shard_of_parameter(parameter, group) : weights->shard(parameter.name));
    const auto range = shard_range(parameter.tensor.numel(), group.rank(), group.size());
    parts.push_back({parameter, shards_.back(), range.begin});
  }
  const auto device = parameters_.empty() ? at::Device(at::kCPU) : parameters_.front().tensor.device();
  rule_ = optim::make_optimizer(std::move(parts), options, sum_over(group, device, std::move(also)));
  std::vector<at::Tensor> wholes;
  for (const auto& parameter : parameters_) wholes.push_back(parameter.tensor);
  batches_ = cut_batches(wholes, GradientBuckets::kBucketBytes);
}

std::unique_ptr<GradientBuckets> ShardedOptimizer::make_buckets(Gradients keep, std::int64_t bucket_bytes) {
  return std::make_unique<GradientBuckets>(parameters_, group_,
                                           GradientParts{shards_, keep == Gradients::kParts}, bucket_bytes);
}

optim::GradientScale ShardedOptimizer::clipping(double limit, bool each_slice) {
  return rule_->clipping(limit, each_slice);
}

void ShardedOptimizer::update(double lr, const optim::GradientScale* scale) {
  scale == nullptr ? rule_->step(lr) : rule_->step(lr, *scale);
  rule_->zero_grad();
  if (gathers_) gather_weights();
}

/// The weights that each rank has updated go to all; two batches are on their way at a time.
void ShardedOptimizer::gather_weights() {
  const at::NoGradGuard no_gradients;
  const auto start = [&](const std::vector<std::size_t>& batch) {
    std::vector<at::Tensor> shards;
    std::vector<std::int64_t> sizes;
    for (const auto i : batch) {
      shards.push_back(shards_[i]);
      sizes.push_back(parameters_[i].tensor.numel());
    }
    return group_.start_all_gather(dealt_row(shards, sizes, group_.size()));
  };
  Pending next = start(batches_.front());
  for (std::size_t k = 0; k < batches_.size(); ++k) {
    Pending gathered = std::exchange(next, {});
    if (k + 1 < batches_.size()) next = start(batches_[k + 1]);
    std::vector<at::Tensor> whole;
    for (const auto i : batches_[k]) whole.push_back(parameters_[i].tensor);
    collect(gathered.wait(), whole);
  }
}

State ShardedOptimizer::state() const {
  return rule_->state();
}

FindWhole ShardedOptimizer::find() const {
  return [this](const std::string& name) -> const at::Tensor* {  // "PARAMETER.exp_avg"; all have the step
    const auto dot = name.rfind('.');
    if (dot == std::string::npos) return nullptr;
    const auto found = places_.find(name.substr(0, dot));
    return found == places_.end() ? nullptr : &parameters_[found->second].tensor;
  };
}

State ShardedOptimizer::whole_state() const {
  return gather_state(rule_->state(), find(), group_);
}

void ShardedOptimizer::load_whole(const State& whole, const std::string& source) {
  load(deal_state(whole, find(), group_, source), source);
}

std::int64_t ShardedOptimizer::first_not_finite() const {
  const auto none = static_cast<std::int64_t>(shards_.size());
  auto first = none;
  for (std::size_t i = 0; i < shards_.size() && first == none; ++i)
    if (const auto& gradient = shards_[i].grad();
        gradient.defined() && !gradient.isfinite().all().item<bool>())
      first = static_cast<std::int64_t>(i);
  const auto all = at::full({1}, first, at::dtype(at::kLong).device(parameters_.front().tensor.device()));
  group_.all_reduce(all, Reduce::kMin);
  first = all.item<std::int64_t>();
  return first == none ? -1 : first;
}

}  // namespace stoa::dist
