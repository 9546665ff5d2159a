#include "stoa/dist/gathered_weights.h"

#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <c10/core/StorageImpl.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/dist/gradient_buckets.h"
#include "stoa/dist/shards.h"
#include "stoa/nn/layer_weights.h"
#include "stoa/tensor/shape.h"

namespace stoa::dist {
namespace {

c10::StorageImpl* memory_of(const at::Tensor& tensor) {
  return tensor.storage().unsafeGetStorageImpl();
}

/// Gives a tensor's memory back, and that of all views of it, such as autograd has saved.
void give_up(const at::Tensor& tensor) {
  auto* const memory = memory_of(tensor);
  memory->set_data_ptr_noswap(c10::GetAllocator(tensor.device().type())->allocate(0));
  memory->set_nbytes(0);
  memory->release_data_and_set_meta_custom_data_ptr_error_msg_(
      "the weights of this layer are not here now: `parallel.zero` is 3; set it to 2");
}

/// Gives it memory again, with nothing in it yet.
void make_room(const at::Tensor& tensor) {
  auto* const memory = memory_of(tensor);
  memory->clear_data_ptr_access_error_msg_();
  memory->set_data_ptr_noswap(c10::GetAllocator(tensor.device().type())->allocate(tensor.nbytes()));
  memory->set_nbytes(tensor.nbytes());
}

/// Sees to it that a parameter has memory of its own, all of which is the parameter.
void require_own_memory(const nn::NamedParameter& parameter) {
  auto tensor = parameter.tensor;
  if (!tensor.is_contiguous())
    throw ShapeError(
        format("parameter `{}` of shape {} has strides {}; only contiguous ones can be shared out: set "
               "`parallel.zero` to 0",
               parameter.name, shape_text(tensor.sizes()), shape_text(tensor.strides())));
  if (tensor.storage_offset() != 0 || memory_of(tensor)->nbytes() != tensor.nbytes())
    tensor.set_data(tensor.detach().clone());
}

}  // namespace

/// What passes of the model call.
class GatheredWeights::Weights final : public nn::LayerWeights {
 public:
  Weights(torch::nn::Module& model, ShardGroups groups) : groups_(std::move(groups)) {
    const at::NoGradGuard no_gradients;
    std::map<std::string, std::int64_t> layers;
    const auto* const brings = dynamic_cast<const nn::BringsWeights*>(&model);
    if (brings != nullptr) layers = brings->layer_parameters();
    units_.resize(1);
    for (auto& parameter : nn::distinct_parameters(model)) {
      require_own_memory(parameter);
      const auto layer = layers.find(parameter.name);
      const auto unit = layer == layers.end() ? 0 : static_cast<std::size_t>(layer->second) + 1;
      units_.resize(std::max(units_.size(), unit + 1));
      places_.emplace(parameter.name, parameters_.size());
      if (is_shared(parameter)) units_[unit].members.push_back(parameters_.size());
      const auto& group = groups_.of(parameter.name);
      shards_.push_back(group.size() == 1 ? parameter.tensor
                                          : shard_of(parameter.tensor, group.rank(), group.size()).clone());
      parameters_.push_back(std::move(parameter));
    }
    for (auto& unit : units_) {
      unit.batches = cut_batches(parameters_, unit.members, groups_, GradientBuckets::kBucketBytes);
      for (const auto i : unit.members) give_up(parameters_[i].tensor);
    }
  }

  void bring(std::int64_t layer, Pass pass) const override {
    if (has_own(layer)) bring_unit(unit_of(layer));
    const auto next = layer + (pass == Pass::kForward ? 1 : -1);  // under way while this layer computes
    if (has_own(next)) start(unit_of(next));
  }
  void leave(std::int64_t layer) const override {
    if (has_own(layer)) leave_unit(unit_of(layer));
  }

  void bring_rest() const { bring_unit(units_.front()); }
  /// After errors too, when other ranks may not answer any more.
  void give_up_all() const {
    for (auto& unit : units_) {
      unit.pending.clear();
      unit.users = std::min(unit.users, 1);
      leave_unit(unit);
    }
  }

  const at::Tensor& shard(const std::string& name) const { return shards_[places_.at(name)]; }
  const at::Tensor* find(const std::string& name) const {
    auto found = places_.find(name);
    if (found == places_.end())
      if (const auto dot = name.rfind('.'); dot != std::string::npos)
        found = places_.find(name.substr(0, dot));
    return found == places_.end() ? nullptr : &parameters_[found->second].tensor;
  }
  const std::map<std::string, std::size_t>& places() const { return places_; }
  const ShardGroups& groups() const { return groups_; }

  /// Puts what a state has in the place of parameters without memory.
  void take(const State& state) const {
    for (const auto& parameter : parameters_) {
      const auto found = state.find(parameter.name);
      if (!is_shared(parameter) || found == state.end()) continue;
      auto tensor = parameter.tensor;
      tensor.set_data(found->second);
    }
  }

 private:
  struct Unit {
    std::vector<std::size_t> members;  // parameters
    std::vector<ShardBatch> batches;
    std::vector<Pending> pending;  // by batch, while they are on their way
    int users = 0;
  };

  /// Neither what this rank alone has nor what it has nothing of, since other stages have the layer.
  bool is_shared(const nn::NamedParameter& parameter) const {
    return groups_.of(parameter.name).size() > 1 && parameter.tensor.numel() > 0;
  }
  /// Whether a layer has parameters of its own; behind the last that does there may be others.
  bool has_own(std::int64_t layer) const { return layer >= 0 && layer + 1 < std::ssize(units_); }
  Unit& unit_of(std::int64_t layer) const { return units_[static_cast<std::size_t>(layer) + 1]; }

  /// All batches of a layer are under way at once; of the rest, which may be large, two.
  void start(Unit& unit) const {
    const std::size_t most = &unit == &units_.front() ? 2 : unit.batches.size();
    if (unit.users > 0 || !unit.pending.empty()) return;
    for (std::size_t k = 0; k < std::min(most, unit.batches.size()); ++k) start_batch(unit, k);
  }

  void start_batch(Unit& unit, std::size_t batch) const {
    const at::NoGradGuard no_gradients;
    const auto& [group, members] = unit.batches[batch];
    std::vector<at::Tensor> shards;
    std::vector<std::int64_t> sizes;
    for (const auto i : members) {
      shards.push_back(shards_[i]);
      sizes.push_back(parameters_[i].tensor.numel());
    }
    unit.pending.push_back(group->start_all_gather(dealt_row(shards, sizes, group->size())));
  }

  void bring_unit(Unit& unit) const {
    if (unit.users > 0) {
      ++unit.users;
      return;
    }
    const at::NoGradGuard no_gradients;
    start(unit);
    unit.users = 1;
    for (std::size_t k = 0; k < unit.batches.size(); ++k) {
      const auto rows = unit.pending[k].wait();
      unit.pending[k] = {};
      if (unit.pending.size() < unit.batches.size()) start_batch(unit, unit.pending.size());
      std::vector<at::Tensor> whole;
      for (const auto i : unit.batches[k].members) {
        make_room(parameters_[i].tensor);
        whole.push_back(parameters_[i].tensor.variable_data());  // autograd sees no change of what it saved
      }
      collect(rows, whole);
    }
    unit.pending.clear();
  }

  void leave_unit(Unit& unit) const {
    if (unit.users == 0 || --unit.users > 0) return;
    for (const auto i : unit.members) give_up(parameters_[i].tensor);
  }

  ShardGroups groups_;
  std::vector<nn::NamedParameter> parameters_;
  std::map<std::string, std::size_t> places_;  // of the parameters by name
  mutable std::vector<at::Tensor> shards_;
  mutable std::vector<Unit> units_;  // the rest, then the layers
};

struct GatheredWeights::Pass::Release {
  std::shared_ptr<const Weights> weights;
};

GatheredWeights::Pass::Pass(std::unique_ptr<Release> release) : release_(std::move(release)) {}
GatheredWeights::Pass::Pass(Pass&& other) noexcept = default;
GatheredWeights::Pass::~Pass() {
  if (release_) release_->weights->give_up_all();
}

GatheredWeights::GatheredWeights(torch::nn::Module& model, ShardGroups groups)
    : weights_(std::make_shared<Weights>(model, std::move(groups))) {
  if (auto* const brings = dynamic_cast<nn::BringsWeights*>(&model)) brings->use_weights(weights_);
}

GatheredWeights::~GatheredWeights() = default;
GatheredWeights::GatheredWeights(GatheredWeights&&) noexcept = default;
GatheredWeights& GatheredWeights::operator=(GatheredWeights&&) noexcept = default;

GatheredWeights::Pass GatheredWeights::pass() const {
  if (!is_shared()) return Pass(nullptr);
  Pass pass(std::make_unique<Pass::Release>(Pass::Release{weights_}));
  weights_->bring_rest();
  return pass;
}

at::Tensor GatheredWeights::shard(const std::string& parameter) const {
  return weights_->shard(parameter);
}

State GatheredWeights::own(const torch::nn::Module& model) const {
  State state;
  for (const auto& [name, place] : weights_->places()) state[name] = weights_->shard(name).detach();
  for (const auto& buffer : nn::distinct_buffers(model)) state[buffer.name] = buffer.tensor.detach();
  return state;
}

FindWhole GatheredWeights::find() const {
  return [weights = weights_](const std::string& name) { return weights->find(name); };
}

State GatheredWeights::whole(const torch::nn::Module& model) const {
  return whole_of(own(model));
}

State GatheredWeights::whole_of(const State& own) const {
  return gather_state(own, find(), weights_->groups());
}

State GatheredWeights::own_of(const State& whole, const std::string& source) const {
  return deal_state(whole, find(), weights_->groups(), source);
}

State GatheredWeights::join(torch::nn::Module& model) {
  if (!is_shared()) return nn::module_state(model);
  const at::NoGradGuard no_gradients;
  const auto state = whole(model);
  if (auto* const brings = dynamic_cast<nn::BringsWeights*>(&model)) brings->use_weights(nullptr);
  weights_->take(state);
  weights_.reset();
  return state;
}

}  // namespace stoa::dist
