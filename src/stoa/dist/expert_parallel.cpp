#include "stoa/dist/expert_parallel.h"

#include <ATen/ATen.h>

#include <iterator>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/moe/mixture.h"

namespace stoa::dist {
namespace {

class GroupExchange final : public nn::ExpertExchange {
 public:
  /// Without `data` this process routes its own tokens alone.
  GroupExchange(std::shared_ptr<Group> data, std::shared_ptr<Group> expert)
      : data_(std::move(data)), expert_(std::move(expert)) {}

  std::int64_t parts() const override { return data_ ? data_->size() : 1; }
  std::int64_t part() const override { return data_ ? data_->rank() : 0; }
  at::Tensor gather(const at::Tensor& values) const override {
    const auto own = values.detach().contiguous();
    return data_ ? data_->all_gather(own) : own.unsqueeze(0);
  }
  std::int64_t holders() const override { return expert_->size(); }
  std::int64_t holder() const override { return expert_->rank(); }
  at::Tensor trade(const at::Tensor& rows, const Counts& send, const Counts& receive) const override {
    return expert_->all_to_all(rows.detach().contiguous(), send, receive);
  }

 private:
  std::shared_ptr<Group> data_, expert_;
};

/// Calls use(mixture, path) for each mixture, once.
template <class Use>
void for_each_mixture(torch::nn::Module& model, const Use& use) {
  for (const auto& item : model.named_modules("", /*include_self=*/true))
    if (auto* const mixture = dynamic_cast<nn::MixtureImpl*>(item.value().get())) use(*mixture, item.key());
}

void require_even(const nn::MixtureImpl& mixture, const std::string& path, std::int64_t holders) {
  const auto experts = mixture.options().router.experts;
  if (experts % holders != 0)
    throw ConfigError(
        format("`parallel.expert` is {}, which does not divide the {} experts of the model's `{}`; take a "
               "number that does",
               holders, experts, path));
}

/// A view of this rank's experts.
at::Tensor share_of(const at::Tensor& whole, const Group& group) {
  const auto experts = whole.size(0) / group.size();
  return whole.narrow(0, group.rank() * experts, experts);
}

}  // namespace

bool has_mixtures(torch::nn::Module& model) {
  bool found = false;
  for_each_mixture(model, [&](nn::MixtureImpl&, const std::string&) { found = true; });
  return found;
}

ExpertParallel::ExpertParallel(torch::nn::Module& model, ExpertGroups groups, bool together)
    : groups_(std::move(groups)) {
  const at::NoGradGuard no_gradients;
  const auto holders = groups_.expert->size();
  if (!has_mixtures(model))
    throw ConfigError(
        format("`parallel.expert` is {}, but this model has no mixture whose experts could be dealt out; set "
               "it to 1",
               holders));
  meets_ = together || holders > 1;
  if (!meets_) return;
  for_each_mixture(model, [&](nn::MixtureImpl& mixture, const std::string& path) {
    require_even(mixture, path, holders);
    if (holders == 1) return;
    for (const auto& [name, experts] : mixture.slices())
      dealt_.emplace(path.empty() ? name : path + "." + name, experts);
  });
  for (auto& parameter : nn::distinct_parameters(model))
    if (is_dealt(parameter.name))
      parameter.tensor.set_data(share_of(parameter.tensor.detach(), *groups_.expert).clone());
  const auto exchange = std::make_shared<GroupExchange>(together ? groups_.data : nullptr, groups_.expert);
  for_each_mixture(
      model, [&](nn::MixtureImpl& mixture, const std::string&) { mixture.use_expert_exchange(exchange); });
}

Group* ExpertParallel::partners() const {
  return deals() && groups_.expert_data->size() > 1 ? groups_.expert_data.get() : nullptr;
}

std::int64_t ExpertParallel::experts_of(const std::string& name) const {
  const auto after = dealt_.upper_bound(name);
  if (after == dealt_.begin()) return 0;
  const auto& [parameter, experts] = *std::prev(after);
  const bool fits = name == parameter || (name.starts_with(parameter) && name[parameter.size()] == '.');
  return fits ? experts : 0;
}

optim::OptimizerOptions ExpertParallel::options_for(const std::vector<nn::NamedParameter>& parameters,
                                                    optim::OptimizerOptions options) const {
  if (!options.exclude_vectors) return options;
  for (const auto& parameter : parameters)
    if (is_dealt(parameter.name) && parameter.slices == 1 && parameter.tensor.dim() <= 2)
      options.exclude.push_back(parameter.name);
  return options;
}

optim::JointSquare ExpertParallel::joint_square(const std::vector<nn::NamedParameter>& parameters) const {
  if (!deals()) return {};
  std::vector<bool> dealt;  // by slice
  for (const auto& parameter : parameters)
    if (parameter.tensor.requires_grad())
      dealt.insert(dealt.end(), static_cast<std::size_t>(parameter.slices), is_dealt(parameter.name));
  const auto device = parameters.front().tensor.device();
  return [group = groups_.expert, dealt = std::move(dealt), device](const std::vector<double>& squares) {
    double shared = 0, own = 0;
    for (std::size_t i = 0; i < squares.size(); ++i) (dealt[i] ? own : shared) += squares[i];
    const auto sum = at::full({1}, own, at::TensorOptions(device).dtype(at::kDouble));
    group->all_reduce(sum);
    return shared + sum.item<double>();
  };
}

ShardGroups ExpertParallel::shard_groups(Group& all) const {
  if (!deals()) return all;
  return {all, *groups_.expert_data, [this](const std::string& name) { return is_dealt(name); }};
}

/// Only the first rank gets it, since that may be more than a process can hold; each share where it belongs.
at::Tensor ExpertParallel::whole_of(const at::Tensor& share) const {
  auto& group = *groups_.expert;
  const auto experts = share.size(0);
  auto sizes = share.sizes().vec();
  sizes[0] = group.rank() == 0 ? experts * group.size() : 0;
  const auto whole = at::empty(sizes, share.options().requires_grad(false));
  if (share.numel() == 0) return whole;
  if (group.rank() > 0) {
    group.start_send(share.detach().contiguous(), 0).wait();
    return whole;
  }
  whole.narrow(0, 0, experts).copy_(share.detach());
  for (int rank = 1; rank < group.size(); ++rank)
    group.start_receive(whole.narrow(0, rank * experts, experts), rank).wait();
  return whole;
}

ExpertParallel::State ExpertParallel::whole(const State& shares) const {
  const at::NoGradGuard no_gradients;
  State state;
  for (const auto& [name, share] : shares) state.emplace(name, is_dealt(name) ? whole_of(share) : share);
  return state;
}

ExpertParallel::State ExpertParallel::shares(const State& whole) const {
  State state;
  for (const auto& [name, tensor] : whole) {
    const bool fits = is_dealt(name) && tensor.dim() > 0 && tensor.size(0) == experts_of(name);
    // misshapen: who loads it says so
    state.emplace(name, fits ? share_of(tensor, *groups_.expert) : tensor);
  }
  return state;
}

void ExpertParallel::join(torch::nn::Module& model) {
  const at::NoGradGuard no_gradients;
  for (auto& parameter : nn::distinct_parameters(model)) {
    if (!is_dealt(parameter.name)) continue;
    parameter.tensor.mutable_grad().reset();
    parameter.tensor.set_data(whole_of(parameter.tensor));
  }
  for_each_mixture(
      model, [](nn::MixtureImpl& mixture, const std::string&) { mixture.use_expert_exchange(nullptr); });
  *this = {};
}

}  // namespace stoa::dist
