#include "stoa/dist/gradient_buckets.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <deque>
#include <numeric>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/dist/shards.h"

namespace stoa::dist {
namespace {

/// Calls a function whenever a gradient was added to.
class GradientHook final : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit GradientHook(std::function<void()> call) : call_(std::move(call)) {}
  void operator()(const torch::autograd::Variable&) override { call_(); }

 private:
  std::function<void()> call_;
};

/// Buckets on their way at a time, where their gradients are given up for it.
constexpr std::size_t kUnderWay = 2;

std::int64_t bytes_of(const nn::NamedParameter& parameter) {
  return parameter.tensor.numel() * parameter.tensor.element_size();
}

}  // namespace

struct GradientBuckets::State {
  struct Bucket {
    std::vector<std::size_t> members;  // parameters
    std::size_t missing = 0;           // members that are not complete yet
    Pending sum;
    bool sent = false, received = false;
  };

  State(std::vector<nn::NamedParameter> named, Group& members, GradientParts destination, std::int64_t size)
      : parameters(std::move(named)),
        group(members),
        to(std::move(destination)),
        bucket_bytes(size),
        expected(parameters.size(), 0),
        additions(parameters.size(), 0) {}

  bool idle() const { return parameters.empty() || (group.size() == 1 && to.parts.empty()); }
  void added(std::size_t parameter);
  void cut();
  void send_full();
  void send(Bucket& bucket);
  void receive(Bucket& bucket);
  void receive_parts(Bucket& bucket);
  void require_equal_passes(const at::Tensor& most);

  std::vector<nn::NamedParameter> parameters;
  Group& group;
  GradientParts to;  // without parts the sums take the gradients' place
  std::int64_t bucket_bytes;
  std::vector<std::int64_t> expected, additions;  // to each gradient, in a last backward pass and in this one
  std::vector<std::size_t> order;                 // in which gradients became complete in the first pass
  std::vector<std::size_t> bucket_of;
  std::vector<Bucket> buckets;
  std::size_t next = 0;  // bucket to send: all ranks send in one order
  std::deque<Bucket*> under_way;
  std::int64_t overlapped = 0;
  bool armed = false;
};

void GradientBuckets::State::added(std::size_t parameter) {
  if (!armed) return;
  ++additions[parameter];
  if (buckets.empty()) {  // the latest addition counts
    std::erase(order, parameter);
    order.push_back(parameter);
    return;
  }
  auto& bucket = buckets[bucket_of[parameter]];
  if (bucket.sent)
    throw Error(
        format("the gradient of {} was added to {} times in this backward pass and {} times in the first; "
               "a model that is not the same in every step cannot be trained by several processes",
               parameters[parameter].name, additions[parameter], expected[parameter]));
  if (additions[parameter] == expected[parameter] && --bucket.missing == 0) send_full();
}

/// Fixes counts and buckets after the first pass, as rank 0 saw it.
void GradientBuckets::State::cut() {
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (additions[i] == 0) order.push_back(i);
  const auto device = parameters[0].tensor.device();
  const auto places = at::tensor(std::vector<std::int64_t>(order.begin(), order.end()), at::kLong).to(device);
  group.broadcast(places, 0);
  const auto counts = at::tensor(additions, at::kLong).to(device);
  group.all_reduce(counts, Reduce::kMax);  // a rank without anything to learn from has made no pass
  const auto first = places.cpu(), most = counts.cpu();
  if (to.release) require_equal_passes(most);
  bucket_of.resize(parameters.size());
  std::int64_t bytes = bucket_bytes;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const auto parameter = static_cast<std::size_t>(first.const_data_ptr<std::int64_t>()[i]);
    expected[i] = most.const_data_ptr<std::int64_t>()[i];
    const auto& tensor = parameters[parameter].tensor;
    const bool other = !buckets.empty() &&
                       parameters[buckets.back().members[0]].tensor.scalar_type() != tensor.scalar_type();
    if (bytes >= bucket_bytes || other) {
      buckets.emplace_back();
      bytes = 0;
    }
    bytes += bytes_of(parameters[parameter]);
    buckets.back().members.push_back(parameter);
    bucket_of[parameter] = buckets.size() - 1;
  }
}

/// Sums that are waited for within a pass hold up every rank whose pass lacks one of their gradients.
void GradientBuckets::State::require_equal_passes(const at::Tensor& most) {
  const bool passed = std::ranges::any_of(additions, [](std::int64_t times) { return times > 0; });
  auto least = passed ? at::tensor(additions, at::kLong) : most.clone();
  least = least.to(parameters[0].tensor.device());
  group.all_reduce(least, Reduce::kMin);
  const auto other = least.cpu().ne(most).nonzero();
  if (other.numel() == 0) return;
  const auto parameter = other[0][0].item<std::int64_t>();
  throw Error(format(
      "the backward pass of one process adds to the gradient of {} {} times, that of another {} times; "
      "with `parallel.zero` over 1 all must add alike: a part that has nothing to learn has to take "
      "part with weight 0",
      parameters[parameter].name, least.cpu()[parameter].item<std::int64_t>(),
      most[parameter].item<std::int64_t>()));
}

void GradientBuckets::State::send_full() {
  for (; next < buckets.size() && buckets[next].missing == 0; ++next) {
    send(buckets[next]);
    ++overlapped;
  }
}

void GradientBuckets::State::send(Bucket& bucket) {
  std::vector<at::Tensor> parts;
  for (const auto member : bucket.members) {
    const auto& tensor = parameters[member].tensor;
    const auto& gradient = tensor.grad();
    parts.push_back((gradient.defined() ? gradient : at::zeros_like(tensor)).reshape(-1));
  }
  bucket.sum = to.parts.empty() ? group.start_all_reduce(at::cat(parts))
                                : group.start_reduce_scatter(deal(parts, group.size()));
  if (to.release)
    for (const auto member : bucket.members) parameters[member].tensor.mutable_grad().reset();
  bucket.sent = true;
  under_way.push_back(&bucket);
  if (!to.release || under_way.size() <= kUnderWay) return;
  receive_parts(*under_way.front());  // what is sent takes memory until it is there
  under_way.pop_front();
}

/// The gradients of the parts are views of the bucket's sum.
void GradientBuckets::State::receive_parts(Bucket& bucket) {
  const auto sum = bucket.sum.wait();
  std::int64_t begin = 0;
  for (const auto member : bucket.members) {
    auto& part = to.parts[member];
    part.mutable_grad() = sum.narrow(0, begin, part.numel());
    begin += shard_width(parameters[member].tensor.numel(), group.size());
  }
  bucket.sum = {};
  bucket.received = true;
}

void GradientBuckets::State::receive(Bucket& bucket) {
  const auto sum = bucket.sum.wait();
  std::int64_t begin = 0;
  for (const auto member : bucket.members) {
    auto& tensor = parameters[member].tensor;
    const auto part = sum.narrow(0, begin, tensor.numel()).view(tensor.sizes());
    begin += tensor.numel();
    if (tensor.grad().defined())
      tensor.mutable_grad().copy_(part);
    else
      tensor.mutable_grad() = part.clone();
  }
  bucket.sum = {};
  bucket.received = true;
}

GradientBuckets::GradientBuckets(std::vector<nn::NamedParameter> parameters, Group& group,
                                 std::int64_t bucket_bytes)
    : GradientBuckets(std::move(parameters), group, GradientParts(), bucket_bytes) {}

GradientBuckets::GradientBuckets(std::vector<nn::NamedParameter> parameters, Group& group,
                                 GradientParts parts, std::int64_t bucket_bytes)
    : state_(std::make_unique<State>(std::move(parameters), group, std::move(parts), bucket_bytes)) {
  if (state_->idle()) return;
  for (std::size_t i = 0; i < state_->parameters.size(); ++i)
    torch::autograd::impl::set_post_acc_grad_hooks(
        state_->parameters[i].tensor,
        std::make_unique<GradientHook>([state = state_.get(), i] { state->added(i); }));
}

GradientBuckets::~GradientBuckets() {
  if (!state_->idle())
    for (auto& parameter : state_->parameters)
      torch::autograd::impl::set_post_acc_grad_hooks(parameter.tensor, nullptr);
}

void GradientBuckets::arm() {
  if (state_->idle()) return;
  state_->armed = true;
  state_->overlapped = 0;
  state_->next = 0;
  std::ranges::fill(state_->additions, 0);
  for (auto& bucket : state_->buckets) {
    const auto comes = [&](std::size_t member) { return state_->expected[member] > 0; };
    bucket.missing = static_cast<std::size_t>(std::ranges::count_if(bucket.members, comes));
  }
}

void GradientBuckets::finish() {
  if (state_->idle()) return;
  const at::NoGradGuard no_gradients;
  state_->armed = false;
  if (state_->buckets.empty()) state_->cut();
  for (auto& bucket : state_->buckets)
    if (!bucket.sent) state_->send(bucket);
  for (auto& bucket : state_->buckets)
    if (!bucket.received) state_->to.parts.empty() ? state_->receive(bucket) : state_->receive_parts(bucket);
  state_->under_way.clear();
  for (auto& bucket : state_->buckets) bucket.sent = bucket.received = false;
}

std::int64_t GradientBuckets::overlapped() const {
  return state_->overlapped;
}

}  // namespace stoa::dist
