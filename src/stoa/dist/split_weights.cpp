#include "stoa/dist/split_weights.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/optim/part.h"

namespace stoa::dist {
namespace {

at::Tensor summed(const at::Tensor& values, Group& group) {
  auto sum = values.detach().clone(at::MemoryFormat::Contiguous);
  group.all_reduce(sum);
  return sum;
}

Group& group_of(torch::autograd::AutogradContext* context) {
  return *reinterpret_cast<Group*>(context->saved_data["group"].toInt());
}

/// One direction is the identity, the other a sum over the group, which outlives the graph.
class SpreadFunction : public torch::autograd::Function<SpreadFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            std::int64_t group) {
    context->saved_data["group"] = group;
    return x.view_as(x);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    return {summed(grads[0], group_of(context)), {}};
  }
};

class SumFunction : public torch::autograd::Function<SumFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& y, std::int64_t group) {
    return summed(y, *reinterpret_cast<Group*>(group));
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 const torch::autograd::variable_list& grads) {
    return {grads[0], {}};
  }
};

class GroupExchange final : public nn::WeightExchange {
 public:
  explicit GroupExchange(std::shared_ptr<Group> group) : group_(std::move(group)) {}
  std::int64_t part() const override { return group_->rank(); }
  std::int64_t parts() const override { return group_->size(); }
  at::Tensor spread(const at::Tensor& x) const override { return SpreadFunction::apply(x, handle()); }
  at::Tensor sum(const at::Tensor& y) const override { return SumFunction::apply(y, handle()); }
  void add_up(const at::Tensor& values) const override { group_->all_reduce(values); }
  void take_maximum(const at::Tensor& values) const override { group_->all_reduce(values, Reduce::kMax); }

 private:
  std::int64_t handle() const { return reinterpret_cast<std::int64_t>(group_.get()); }
  std::shared_ptr<Group> group_;
};

/// Calls use(module, path) for each module that can be split; the model itself has the path "".
template <class Use>
void for_each_split(torch::nn::Module& model, const Use& use) {
  if (auto* const module = dynamic_cast<nn::SplitsWeights*>(&model)) use(*module, "");
  for (const auto& item : model.named_modules("", /*include_self=*/false))
    if (auto* const module = dynamic_cast<nn::SplitsWeights*>(item.value().get())) use(*module, item.key());
}

/// A view of it, but of several slices.
at::Tensor share_of(const at::Tensor& whole, const nn::WeightCut& cut, const Group& group) {
  const nn::RowShare share(whole.size(cut.dim) / cut.slices, group.rank(), group.size());
  if (cut.slices == 1) return whole.narrow(cut.dim, share.first, share.count);
  std::vector<at::Tensor> shares;
  for (const auto& slice : whole.chunk(cut.slices, cut.dim))
    shares.push_back(slice.narrow(cut.dim, share.first, share.count));
  return at::cat(shares, cut.dim);
}

/// `size`: of the whole along the dimension that is cut.
at::Tensor whole_of(const at::Tensor& share, const nn::WeightCut& cut, std::int64_t size, Group& group) {
  const std::int64_t slice_size = size / cut.slices, rows = nn::RowShare(slice_size, 0, group.size()).rows;
  auto by_slice = share.unflatten(cut.dim, {cut.slices, -1});  // the last rank may have fewer rows
  std::vector<std::int64_t> more(static_cast<std::size_t>(2 * (share.dim() - cut.dim)), 0);
  more.back() = rows - by_slice.size(cut.dim + 1);
  by_slice = at::constant_pad_nd(by_slice, more).contiguous();
  const auto ranks = group.all_gather(by_slice);  // [ranks, ..., slices, rows, ...]
  return ranks.movedim(0, cut.dim + 1)
      .flatten(cut.dim + 1, cut.dim + 2)
      .narrow(cut.dim + 1, 0, slice_size)
      .flatten(cut.dim, cut.dim + 1)
      .contiguous();
}

/// The same, on the first rank alone.
at::Tensor gathered(const at::Tensor& share, const nn::WeightCut& cut, std::int64_t size, Group& group) {
  if (group.rank() > 0) {
    if (share.numel() > 0) group.start_send(share.detach().contiguous(), 0).wait();
    return {};
  }
  auto sizes = share.sizes().vec();
  sizes[static_cast<std::size_t>(cut.dim)] = size;
  const auto whole = at::empty(sizes, share.options().requires_grad(false));
  const auto by_slice = whole.unflatten(cut.dim, {cut.slices, size / cut.slices});
  for (int rank = 0; rank < group.size(); ++rank) {
    const nn::RowShare rows(size / cut.slices, rank, group.size());
    const auto part = by_slice.narrow(cut.dim + 1, rows.first, rows.count);
    if (part.numel() == 0) continue;
    part.copy_(rank == 0 ? share.detach().unflatten(cut.dim, {cut.slices, rows.count})
                         : group.start_receive(at::empty(part.sizes(), whole.options()), rank).wait());
  }
  return whole;
}

}  // namespace

SplitWeights::SplitWeights(torch::nn::Module& model, std::shared_ptr<Group> group)
    : group_(std::move(group)) {
  const at::NoGradGuard no_gradients;
  const auto exchange = std::make_shared<GroupExchange>(group_);
  for_each_split(model, [&](nn::SplitsWeights& module, const std::string& path) {
    module.require_parts(group_->size());
    for (const auto& [name, cut] : module.cuts())
      cuts_.emplace(path.empty() ? name : path + "." + name, Cut{cut, 0});
  });
  if (cuts_.empty())
    throw ConfigError(
        format("`parallel.tensor` is {}, but this model has no weights that can be split; set it to 1",
               group_->size()));
  for (auto& parameter : nn::distinct_parameters(model))
    if (auto cut = cuts_.find(parameter.name); cut != cuts_.end()) {
      cut->second.size = parameter.tensor.size(cut->second.cut.dim);
      parameter.tensor.set_data(
          share_of(parameter.tensor.detach(), cut->second.cut, *group_).clone(at::MemoryFormat::Contiguous));
    }
  for_each_split(model,
                 [&](nn::SplitsWeights& module, const std::string&) { module.use_exchange(exchange); });
}

const SplitWeights::Cut* SplitWeights::cut_of(const std::string& name) const {
  const auto after = cuts_.upper_bound(name);
  if (after == cuts_.begin()) return nullptr;
  const auto& [parameter, cut] = *std::prev(after);
  const bool fits = name == parameter || (name.starts_with(parameter) && name[parameter.size()] == '.');
  return fits ? &cut : nullptr;
}

optim::SumOverParts SplitWeights::sum_over_shares(const std::vector<nn::NamedParameter>& parameters) const {
  if (group_ == nullptr) return {};
  std::vector<bool> counts;  // of each slice: whether this rank's sum goes into that of all
  for (const auto& parameter : parameters) {
    if (!parameter.tensor.requires_grad()) continue;
    const bool added = group_->rank() == 0 || is_share(parameter.name);
    counts.insert(counts.end(), static_cast<std::size_t>(parameter.slices), added);
  }
  return [group = group_, counts = std::move(counts)](std::vector<double>& sums) {
    for (std::size_t i = 0; i < sums.size(); ++i)
      if (!counts[i % counts.size()]) sums[i] = 0;
    group->all_reduce(at::from_blob(sums.data(), {static_cast<std::int64_t>(sums.size())}, at::kDouble));
  };
}

SplitWeights::State SplitWeights::whole(const State& shares) const {
  State state;
  for (const auto& [name, share] : shares) {
    const auto* cut = cut_of(name);
    state.emplace(name, cut == nullptr ? share : whole_of(share, cut->cut, cut->size, *group_));
  }
  return state;
}

SplitWeights::State SplitWeights::whole_on_first(const State& shares) const {
  if (group_ == nullptr) return shares;
  State state;
  for (const auto& [name, share] : shares) {
    const auto* cut = cut_of(name);
    const auto tensor = cut == nullptr ? share : gathered(share, cut->cut, cut->size, *group_);
    if (group_->rank() == 0) state.emplace(name, tensor);
  }
  return state;
}

SplitWeights::State SplitWeights::shares(const State& whole) const {
  State state;
  for (const auto& [name, tensor] : whole) {
    const auto* cut = cut_of(name);
    // one of another size: who loads it says so
    const bool fits = cut != nullptr && tensor.dim() > cut->cut.dim && tensor.size(cut->cut.dim) == cut->size;
    state.emplace(name, fits ? share_of(tensor, cut->cut, *group_) : tensor);
  }
  return state;
}

void SplitWeights::join(torch::nn::Module& model) {
  if (group_ == nullptr) return;
  const at::NoGradGuard no_gradients;
  for (auto& parameter : nn::distinct_parameters(model)) {
    const auto* cut = cut_of(parameter.name);
    if (cut == nullptr) continue;
    parameter.tensor.mutable_grad().reset();
    parameter.tensor.set_data(whole_of(parameter.tensor.detach(), cut->cut, cut->size, *group_));
  }
  for_each_split(model, [](nn::SplitsWeights& module, const std::string&) { module.use_exchange(nullptr); });
  group_.reset();
  cuts_.clear();
}

}  // namespace stoa::dist
