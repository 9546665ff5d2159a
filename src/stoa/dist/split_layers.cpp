#include "stoa/dist/split_layers.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa::dist {
namespace {

constexpr int kForwardTag = 0, kBackwardTag = 1;

at::Tensor zero_like(const at::Tensor& x) {
  return at::zeros({}, x.options().requires_grad(false));
}

}  // namespace

/// Messages to and from the ranks before and behind. It outlives the graph.
class SplitLayers::Line final : public nn::LayerExchange {
 public:
  explicit Line(std::shared_ptr<Group> group) : group_(std::move(group)) {}
  std::int64_t stage() const override { return group_->rank(); }
  std::int64_t stages() const override { return group_->size(); }
  at::Tensor send(const at::Tensor& x) const override;
  at::Tensor receive(at::IntArrayRef sizes, const at::TensorOptions& options) const override;
  void take_last(const at::Tensor& values) const override {
    flush();
    group_->broadcast(values, group_->size() - 1);
  }

  /// A message is kept until it has arrived; of more than a schedule has on their way, the first is waited
  /// for.
  void start_send(const at::Tensor& t, int to, int tag) const {
    wait_until_fewer(2 * group_->size());
    sent_.push_back(group_->start_send(t.detach().contiguous(), to, tag));
  }
  /// Everything has arrived.
  void flush() const { wait_until_fewer(1); }
  at::Tensor take(const at::Tensor& into, int from, int tag) const {
    return group_->start_receive(into, from, tag).wait();
  }
  int before() const { return group_->rank() - 1; }
  int behind() const { return group_->rank() + 1; }

 private:
  void wait_until_fewer(std::int64_t count) const {
    for (; std::ssize(sent_) >= count; sent_.pop_front()) sent_.front().wait();
  }

  std::shared_ptr<Group> group_;
  mutable std::deque<Pending> sent_;
};

namespace {

using Line = SplitLayers::Line;

const Line& line_of(torch::autograd::AutogradContext* context) {
  return *reinterpret_cast<const Line*>(context->saved_data["line"].toInt());
}

class SendFunction : public torch::autograd::Function<SendFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            std::int64_t line) {
    context->saved_data["line"] = line;
    context->saved_data["like"] = at::empty({0}, x.options());
    context->saved_data["sizes"] = x.sizes().vec();
    const auto& messages = *reinterpret_cast<const Line*>(line);
    messages.start_send(x, messages.behind(), kForwardTag);
    return zero_like(x);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list&) {
    const auto& line = line_of(context);
    const auto gradient = at::empty(context->saved_data["sizes"].toIntVector(),
                                    context->saved_data["like"].toTensor().options());
    return {line.take(gradient, line.behind(), kBackwardTag), {}};
  }
};

/// `start` is a scalar that wants a gradient, without which there would be no backward pass.
class ReceiveFunction : public torch::autograd::Function<ReceiveFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& start,
                            at::IntArrayRef sizes, std::int64_t line) {
    context->saved_data["line"] = line;
    const auto& messages = *reinterpret_cast<const Line*>(line);
    return messages.take(at::empty(sizes, start.options().requires_grad(false)), messages.before(),
                         kForwardTag);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto& line = line_of(context);
    line.start_send(grads[0], line.before(), kBackwardTag);
    return {{}, {}, {}};
  }
};

}  // namespace

at::Tensor SplitLayers::Line::send(const at::Tensor& x) const {
  return SendFunction::apply(x, reinterpret_cast<std::int64_t>(this));
}

at::Tensor SplitLayers::Line::receive(at::IntArrayRef sizes, const at::TensorOptions& options) const {
  const auto start = at::zeros({}, options.requires_grad(false)).requires_grad_();
  return ReceiveFunction::apply(start, sizes, reinterpret_cast<std::int64_t>(this));
}

namespace {

/// Keeps the dimensions, which say what decays, but no row.
at::Tensor without_rows(const at::Tensor& tensor) {
  return tensor.dim() == 0 ? tensor : tensor.narrow(0, 0, 0).clone();
}

nn::SplitsLayers& layers_in(torch::nn::Module& model, const Group& group) {
  auto* const layers = dynamic_cast<nn::SplitsLayers*>(&model);
  if (layers == nullptr)
    throw ConfigError(
        format("`parallel.pipeline` is {}, but this model has no layers that can be split; set it to 1",
               group.size()));
  layers->require_stages(group.size());
  if (layers->layers() < group.size())
    throw ConfigError(format("`parallel.pipeline` is {}, but the model has {} layers; set it to {} at most",
                             group.size(), layers->layers(), layers->layers()));
  return *layers;
}

}  // namespace

nn::LayerRange layers_of_stage(std::int64_t layers, std::int64_t stage, std::int64_t stages) {
  return {layers * stage / stages, layers * (stage + 1) / stages};
}

bool SplitLayers::Parameter::is_used_by(int rank) const {
  return std::ranges::find(ranks, rank) != ranks.end();
}

SplitLayers::SplitLayers(torch::nn::Module& model, std::shared_ptr<Group> group) : group_(std::move(group)) {
  const at::NoGradGuard no_gradients;
  auto& layers = layers_in(model, *group_);
  const auto users = layers.users();
  for (const auto& [name, tensor, slices] : nn::distinct_parameters(model)) {
    if (tensor.is_cuda())
      throw ConfigError(
          "`parallel.pipeline` works on the CPU only so far; set it to 1, or `runtime.device` to \"cpu\"");
    Parameter parameter{name, tensor, tensor.sizes().vec(), {}};
    for (int rank = 0; rank < group_->size(); ++rank) {
      const auto range = layers_of_stage(layers.layers(), rank, group_->size());
      if (std::ranges::any_of(users.at(name), [&](std::int64_t layer) { return range.has(layer); }))
        parameter.ranks.push_back(rank);
    }
    if (!parameter.is_used_by(group_->rank())) parameter.tensor.set_data(without_rows(tensor.detach()));
    parameters_.emplace(name, std::move(parameter));
  }
  line_ = std::make_shared<Line>(group_);
  layers.use_layers(layers_of_stage(layers.layers(), stage(), stages()), line_);
}

const SplitLayers::Parameter* SplitLayers::parameter_of(const std::string& name) const {
  auto found = parameters_.find(name);
  if (found == parameters_.end())
    if (const auto dot = name.rfind('.'); dot != std::string::npos)
      found = parameters_.find(name.substr(0, dot));
  return found == parameters_.end() ? nullptr : &found->second;
}

optim::SumOverParts SplitLayers::sum_over_stages(const std::vector<nn::NamedParameter>& parameters,
                                                 optim::SumOverParts within) const {
  if (!is_split()) return within;
  std::vector<bool> counts;  // of each slice: whether this rank's sum goes into that of all
  for (const auto& parameter : parameters) {
    if (!parameter.tensor.requires_grad()) continue;
    const bool own = parameters_.at(parameter.name).owner() == group_->rank();
    counts.insert(counts.end(), static_cast<std::size_t>(parameter.slices), own);
  }
  return [group = group_, counts = std::move(counts), within = std::move(within)](std::vector<double>& sums) {
    if (within) within(sums);
    for (std::size_t i = 0; i < sums.size(); ++i)
      if (!counts[i % counts.size()]) sums[i] = 0;
    group->all_reduce(at::from_blob(sums.data(), {static_cast<std::int64_t>(sums.size())}, at::kDouble));
  };
}

/// The owner adds in the order of ranks, and gives the sum to all.
void SplitLayers::sum_gradients(const std::vector<at::Tensor>& holders, const std::vector<int>& ranks) const {
  std::vector<at::Tensor> gradients;
  for (const auto& holder : holders)
    gradients.push_back((holder.grad().defined() ? holder.grad() : at::zeros_like(holder)).reshape(-1));
  const auto sum = at::cat(gradients), other = at::empty_like(sum);
  if (ranks.front() == group_->rank()) {
    std::vector<Pending> sent;
    for (std::size_t i = 1; i < ranks.size(); ++i)
      sum.add_(group_->start_receive(other, ranks[i], kBackwardTag).wait());
    for (std::size_t i = 1; i < ranks.size(); ++i)
      sent.push_back(group_->start_send(sum, ranks[i], kForwardTag));
    for (auto& message : sent) message.wait();
  } else {
    group_->start_send(sum, ranks.front(), kBackwardTag).wait();
    group_->start_receive(sum, ranks.front(), kForwardTag).wait();
  }
  std::int64_t begin = 0;
  for (const auto& holder : holders) {
    const auto part = sum.narrow(0, begin, holder.numel()).view(holder.sizes());
    begin += holder.numel();
    if (holder.grad().defined())
      holder.mutable_grad().copy_(part);
    else
      holder.mutable_grad() = part.clone();
  }
}

void SplitLayers::add_shared_gradients(const FindHolder& holder) const {
  if (!is_split()) return;
  const at::NoGradGuard no_gradients;
  line_->flush();
  std::map<std::pair<std::vector<int>, at::ScalarType>, std::vector<at::Tensor>> shared;
  for (const auto& [name, parameter] : parameters_)
    if (parameter.ranks.size() > 1 && parameter.is_used_by(group_->rank()) &&
        parameter.tensor.requires_grad())
      shared[{parameter.ranks, parameter.tensor.scalar_type()}].push_back(holder ? holder(name)
                                                                                 : parameter.tensor);
  for (const auto& [key, holders] : shared) sum_gradients(holders, key.first);
}

SplitLayers::State SplitLayers::whole(const State& own) const {
  if (!is_split()) return own;
  const at::NoGradGuard no_gradients;
  State state;
  for (const auto& [name, tensor] : own) {
    const auto* const parameter = parameter_of(name);
    if (parameter == nullptr || parameter->owner() == 0) {
      if (stage() == 0) state.emplace(name, tensor);
    } else if (stage() == 0) {
      const auto into = at::empty(parameter->sizes, tensor.options());
      state.emplace(name, group_->start_receive(into, parameter->owner()).wait());
    } else if (stage() == parameter->owner()) {
      group_->start_send(tensor.detach().contiguous(), 0).wait();
    }
  }
  return state;
}

SplitLayers::State SplitLayers::own(const State& whole) const {
  if (!is_split()) return whole;
  State state;
  for (const auto& [name, tensor] : whole) {
    const auto* const parameter = parameter_of(name);
    // one of another size: who loads it says so
    const bool given_up = parameter != nullptr && !parameter->is_used_by(group_->rank()) &&
                          tensor.sizes() == at::IntArrayRef(parameter->sizes);
    state.emplace(name, given_up ? without_rows(tensor) : tensor);
  }
  return state;
}

void SplitLayers::join(torch::nn::Module& model, const State& own) {
  if (!is_split()) return;
  const at::NoGradGuard no_gradients;
  line_->flush();
  for (const auto& [name, tensor] : whole(own))
    if (const auto found = parameters_.find(name); found != parameters_.end()) {
      auto& parameter = found->second.tensor;
      parameter.mutable_grad().reset();
      if (!found->second.is_used_by(0)) parameter.set_data(tensor);
    }
  if (stage() > 0) return;
  auto& layers = dynamic_cast<nn::SplitsLayers&>(model);
  layers.use_layers({0, layers.layers()}, nullptr);
  line_.reset();
  group_.reset();
  parameters_.clear();
}

std::string SplitLayers::of_last(const std::string& text) const {
  if (!is_split()) return text;
  const auto size = at::full({1}, static_cast<std::int64_t>(text.size()), at::kLong);
  group_->broadcast(size, group_->size() - 1);
  const auto bytes = at::empty({size.item<std::int64_t>()}, at::kByte);
  if (stage() + 1 == stages()) std::memcpy(bytes.mutable_data_ptr(), text.data(), text.size());
  group_->broadcast(bytes, group_->size() - 1);
  return {static_cast<const char*>(bytes.const_data_ptr()), static_cast<std::size_t>(bytes.numel())};
}

std::vector<double> SplitLayers::of_last(const std::vector<double>& numbers) const {
  if (!is_split()) return numbers;
  const auto* const bytes = reinterpret_cast<const char*>(numbers.data());
  const auto text = of_last(std::string(bytes, numbers.size() * sizeof(double)));
  std::vector<double> last(text.size() / sizeof(double));
  std::memcpy(last.data(), text.data(), text.size());
  return last;
}

}  // namespace stoa::dist
