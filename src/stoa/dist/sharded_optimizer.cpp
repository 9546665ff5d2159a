#include "stoa/dist/sharded_optimizer.h"

#include <ATen/ATen.h>

#include <numeric>
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

/// A view of it; of what this rank has alone the parameter itself.
at::Tensor shard_of_parameter(const nn::NamedParameter& parameter, const Group& group) {
  if (group.size() == 1) return parameter.tensor;
  if (!parameter.tensor.is_contiguous())
    throw ShapeError(
        format("parameter `{}` of shape {} has strides {}; only contiguous ones can be shared "
               "out: set `parallel.zero` to 0",
               parameter.name, shape_text(parameter.tensor.sizes()), shape_text(parameter.tensor.strides())));
  return shard_of(parameter.tensor, group.rank(), group.size());
}

/// Whether each slice of each parameter is of an expert.
std::vector<bool> expert_slices(const std::vector<nn::NamedParameter>& parameters,
                                const ShardGroups& groups) {
  std::vector<bool> slices;
  for (const auto& parameter : parameters)
    slices.insert(slices.end(), static_cast<std::size_t>(parameter.slices), groups.is_expert(parameter.name));
  return slices;
}

/// Adds up the sums of some slices, once or several times over, over a group.
void add_up(std::vector<double>& sums, const std::vector<bool>& slices, bool chosen, Group& group,
            const at::Device& device) {
  if (group.size() == 1) return;
  std::vector<double> own;
  for (std::size_t i = 0; i < sums.size(); ++i)
    if (slices[i % slices.size()] == chosen) own.push_back(sums[i]);
  const auto all = at::tensor(own, at::kDouble).to(device);
  group.all_reduce(all);
  const auto on_host = all.cpu();
  const auto* sum = on_host.const_data_ptr<double>();
  for (std::size_t i = 0; i < sums.size(); ++i)
    if (slices[i % slices.size()] == chosen) sums[i] = *sum++;
}

/// Adds up sums among those who have shards of the same, then over `also`.
optim::SumOverParts sum_over(const ShardGroups& groups, std::vector<bool> experts, const at::Device& device,
                             optim::SumOverParts also) {
  return [=, experts = std::move(experts), also = std::move(also)](std::vector<double>& sums) {
    add_up(sums, experts, false, groups.all(), device);
    if (groups.experts() != nullptr) add_up(sums, experts, true, *groups.experts(), device);
    if (also) also(sums);
  };
}

}  // namespace

ShardedOptimizer::ShardedOptimizer(std::vector<nn::NamedParameter> parameters,
                                   const optim::OptimizerOptions& options, ShardGroups groups,
                                   optim::SumOverParts also, const GatheredWeights* weights,
                                   optim::JointSquare joint)
    : Optimizer(trainable(std::move(parameters))),
      groups_(std::move(groups)),
      gathers_(weights == nullptr || !weights->is_shared()) {
  std::vector<optim::PartialParameter> parts;
  for (const auto& parameter : parameters_) {
    const auto& group = groups_.of(parameter.name);
    places_.emplace(parameter.name, shards_.size());
    shards_.push_back(gathers_ ? shard_of_parameter(parameter, group) : weights->shard(parameter.name));
    const auto range = shard_range(parameter.tensor.numel(), group.rank(), group.size());
    parts.push_back({parameter, shards_.back(), range.begin});
  }
  const auto device = parameters_.empty() ? at::Device(at::kCPU) : parameters_.front().tensor.device();
  auto sum = sum_over(groups_, expert_slices(parameters_, groups_), device, std::move(also));
  rule_ = optim::make_optimizer(std::move(parts), options, std::move(sum), std::move(joint));
  if (!gathers_) return;
  std::vector<std::size_t> all(parameters_.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  batches_ = cut_batches(parameters_, all, groups_, GradientBuckets::kBucketBytes);
}

std::unique_ptr<GradientBuckets> ShardedOptimizer::buckets_of(bool experts, Group& group, Gradients keep,
                                                              std::int64_t bucket_bytes) const {
  std::vector<nn::NamedParameter> members;
  GradientParts parts{{}, keep == Gradients::kParts};
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (groups_.is_expert(parameters_[i].name) != experts) continue;
    members.push_back(parameters_[i]);
    if (group.size() > 1) parts.parts.push_back(shards_[i]);
  }
  return std::make_unique<GradientBuckets>(std::move(members), group, std::move(parts), bucket_bytes);
}

std::unique_ptr<GradientBuckets> ShardedOptimizer::make_buckets(Gradients keep,
                                                                std::int64_t bucket_bytes) const {
  return buckets_of(false, groups_.all(), keep, bucket_bytes);
}

std::unique_ptr<GradientBuckets> ShardedOptimizer::make_expert_buckets(Gradients keep) const {
  auto* const group = groups_.experts();
  if (group == nullptr || group->size() == 1) return nullptr;
  return buckets_of(true, *group, keep, GradientBuckets::kBucketBytes);
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
  const auto start = [&](const ShardBatch& batch) {
    std::vector<at::Tensor> shards;
    std::vector<std::int64_t> sizes;
    for (const auto i : batch.members) {
      shards.push_back(shards_[i]);
      sizes.push_back(parameters_[i].tensor.numel());
    }
    return batch.group->start_all_gather(dealt_row(shards, sizes, batch.group->size()));
  };
  Pending next = batches_.empty() ? Pending() : start(batches_.front());
  for (std::size_t k = 0; k < batches_.size(); ++k) {
    Pending gathered = std::exchange(next, {});
    if (k + 1 < batches_.size()) next = start(batches_[k + 1]);
    std::vector<at::Tensor> whole;
    for (const auto i : batches_[k].members) whole.push_back(parameters_[i].tensor);
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

State ShardedOptimizer::whole_of(const State& shards) const {
  return gather_state(shards, find(), groups_);
}

State ShardedOptimizer::own_of(const State& whole, const std::string& source) const {
  return deal_state(whole, find(), groups_, source);
}

std::int64_t ShardedOptimizer::first_not_finite() const {
  const auto none = static_cast<std::int64_t>(shards_.size());
  auto first = none;
  for (std::size_t i = 0; i < shards_.size() && first == none; ++i)
    if (const auto& gradient = shards_[i].grad();
        gradient.defined() && !gradient.isfinite().all().item<bool>())
      first = static_cast<std::int64_t>(i);
  const auto all = at::full({1}, first, at::dtype(at::kLong).device(parameters_.front().tensor.device()));
  groups_.all().all_reduce(all, Reduce::kMin);
  first = all.item<std::int64_t>();
  return first == none ? -1 : first;
}

}  // namespace stoa::dist
