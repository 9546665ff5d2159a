#include "stoa/nn/moe/router.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <cmath>
#include <optional>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/random.h"
#include "stoa/nn/init.h"
#include "stoa/nn/moe/joint_routing.h"
#include "stoa/nn/moe/selection.h"
#include "stoa/ops/dropout.h"
#include "stoa/tensor/shape.h"

namespace stoa::nn {

namespace {

// The tokens at hand and their groups, which may have tokens of other processes too.
struct Scope {
  RoutingGroups groups;  // without `joint`
  const JointTokens* joint = nullptr;

  const RoutingGroups& all() const { return joint != nullptr ? joint->all() : groups; }
  std::int64_t tokens() const { return joint != nullptr ? joint->own().tokens : groups.tokens; }
  at::Tensor mean(const at::Tensor& values) const {
    return joint != nullptr ? joint->group_mean(values) : group_mean(values, groups);
  }
};

// Slots per expert of every group, empty for unlimited.
std::vector<std::int64_t> capacities(const RoutingGroups& groups, const RouterOptions& options,
                                     bool training) {
  double factor = training ? options.capacity_factor : options.eval_capacity_factor;
  if (factor < 0 || (options.routing == RoutingKind::kExpertChoice && factor == 0))
    factor = options.capacity_factor;
  if (factor == 0) return {};
  std::vector<std::int64_t> result;
  for (std::int64_t g = 0; g < groups.count(); ++g)
    result.push_back(expert_capacity(groups.end(g) - groups.begin(g), factor, options) -
                     (options.reserve_first_slot ? 1 : 0));
  return result;
}

at::Tensor share_by_group(const at::Tensor& counts, const at::Tensor& like) {
  const auto numbers = counts.to(like.scalar_type());
  return numbers / numbers.sum(1, /*keepdim=*/true);
}

void choose_experts(Routing& routing, const Scope& scope, const RouterOptions& options, bool training) {
  const auto& probabilities = routing.probabilities;
  const auto k = options.top_k;
  routing.index = top_experts(probabilities.detach(), k);
  auto gates = probabilities.gather(1, routing.index);
  const auto capacity = capacities(scope.all(), options, training);
  const auto first_gate = gates.detach().select(1, 0);
  at::Tensor counts;
  if (scope.joint != nullptr) {
    counts = scope.joint->count_choices(routing.index, options.experts);
    routing.slot = scope.joint->fill_slots(routing.index, first_gate, counts, options.fill, capacity);
    counts = counts.sum({0, 2});
  } else {
    counts = count_by_group(routing.index, scope.groups, options.experts);
    routing.slot =
        fill_slots(routing.index, first_gate, scope.groups, options.experts, options.fill, capacity);
  }
  if (options.renormalise_gates) gates = gates / gates.sum(1, /*keepdim=*/true);

  const auto total = routing.index.numel();
  const auto kept = capacity.empty() ? at::arange(total, routing.index.options())
                                     : routing.slot.flatten().ge(0).nonzero().squeeze(1);
  auto& assignments = routing.assignments;
  assignments.token = kept.floor_divide(k);
  assignments.expert = routing.index.flatten();
  assignments.gate = gates.flatten();
  if (kept.size(0) < total) {
    assignments.expert = assignments.expert.index_select(0, kept);
    assignments.gate = assignments.gate.index_select(0, kept);
  }
  auto& statistics = routing.statistics;
  statistics.fraction = share_by_group(counts, probabilities);
  statistics.drop_rate = at::scalar_tensor(
      1.0 - static_cast<double>(kept.size(0)) / static_cast<double>(total), probabilities.options());
}

void choose_tokens(Routing& routing, const Scope& scope, const RouterOptions& options, bool training) {
  const auto& probabilities = routing.probabilities;
  auto& [token, expert, gate] = routing.assignments;
  const auto capacity = capacities(scope.all(), options, training);
  const auto* const joint = scope.joint;
  const auto tokens = scope.tokens();
  std::tie(token, expert) = top_tokens(
      joint != nullptr ? joint->gather(probabilities) : probabilities.detach(), scope.all(), capacity);
  if (joint != nullptr) {
    const auto last = joint->first() + tokens;
    const auto here = token.ge(joint->first()).logical_and(token.lt(last)).nonzero().squeeze(1);
    token = token.index_select(0, here) - joint->first();
    expert = expert.index_select(0, here);
  }
  gate = probabilities.flatten().index_select(0, token * options.experts + expert);
  if (options.renormalise_gates)
    gate = gate / at::zeros({tokens}, gate.options()).index_add(0, token, gate).index_select(0, token);
  auto& statistics = routing.statistics;
  statistics.fraction = at::full({scope.all().count(), options.experts},
                                 1.0 / static_cast<double>(options.experts), probabilities.options());
  statistics.drop_rate = at::bincount(token, {}, tokens).eq(0).to(probabilities.scalar_type()).mean();
}

// Squared coefficient of variation over experts, mean over groups: [groups, E] -> scalar.
at::Tensor squared_variation(const at::Tensor& values) {
  return (values.var(1, /*unbiased=*/false) / values.mean(1).square()).mean();
}

// V-MoE's two losses (2.4): experts should be equally important, and equally likely to be chosen under fresh
// noise.
void add_vmoe_losses(Routing& routing, const at::Tensor& noisy, const at::Tensor& clean, const Scope& scope,
                     const RouterOptions& options) {
  auto& statistics = routing.statistics;
  if (options.importance_weight > 0)
    statistics.importance = squared_variation(scope.mean(at::softmax(clean, 1)));
  if (options.load_weight > 0) {
    const double deviation = options.noise / static_cast<double>(options.experts);
    const auto threshold = noisy.gather(1, routing.index.narrow(1, options.top_k - 1, 1));
    const auto chance = at::special_ndtr((clean - threshold) / deviation);  // 1 - Phi(z) = Phi(-z)
    statistics.load_loss = squared_variation(scope.mean(chance));
  }
}

// Means over the tokens of all processes, in one sum over these.
void add_joint_means(Routing& routing, const at::Tensor& logits, const JointTokens& joint,
                     const RouterOptions& options) {
  const auto& probabilities = routing.probabilities;
  auto& statistics = routing.statistics;
  const auto dropped = statistics.drop_rate.expand({logits.size(0)});
  const auto scalars =
      at::stack({logits.logsumexp(1).square(), at::special_entr(probabilities.detach()).sum(1), dropped}, 1);
  const auto means = joint.group_mean(at::cat({probabilities, scalars}, 1));
  statistics.probability = means.narrow(1, 0, options.experts);
  const auto overall = joint.mean(means.narrow(1, options.experts, 3));
  statistics.z = overall[0];
  statistics.entropy = overall[1].detach();
  statistics.drop_rate = overall[2].detach();
}

void require_finite(bool finite) {
  if (!finite)
    throw NumericError(
        "router: the gates are not finite, because logits are NaN or infinite; lower the learning rate, clip "
        "gradients "
        "or look for non-finite values in the input");
}

// Standard normal numbers [keys, E]: a row's depend on the call's number and its key alone.
at::Tensor keyed_noise(const at::Tensor& keys, std::int64_t experts) {
  const auto call = static_cast<std::uint64_t>(ops::dropout_seed(1));
  const auto from = keys.to(at::kCPU, at::kLong).contiguous();
  const auto noise = at::empty({keys.numel(), experts}, at::kDouble);
  const auto* const key = from.const_data_ptr<std::int64_t>();
  auto* const to = noise.mutable_data_ptr<double>();
  at::parallel_for(0, keys.numel(), 512, [&](std::int64_t begin, std::int64_t end) {
    for (auto row = begin; row < end; ++row) {
      RandomStream random(mix_seed({call, static_cast<std::uint64_t>(key[row])}));
      for (std::int64_t e = 0; e < experts; ++e) to[row * experts + e] = random.normal();
    }
  });
  return noise;
}

}  // namespace

Routing route(const at::Tensor& logits, const at::Tensor& clean, const RouterOptions& options, bool training,
              const ExpertExchange* exchange) {
  options.validate();
  check_shape(logits, {-1, -1, options.experts}, "router logits");
  if (logits.scalar_type() != at::kFloat && logits.scalar_type() != at::kDouble)
    throw Error(format("router logits are of type {}; float or double is needed",
                       c10::toString(logits.scalar_type())));
  if (logits.numel() == 0)
    throw ShapeError(format("router logits have shape {}; no token to route", shape_text(logits.sizes())));
  const auto flat = logits.flatten(0, 1);

  Routing routing;
  routing.probabilities = at::softmax(flat, 1);
  bool finite = std::isfinite(routing.probabilities.detach().sum().item<double>());
  std::optional<JointTokens> joint;
  if (training && exchange != nullptr && exchange->parts() > 1) {
    joint.emplace(*exchange, flat.size(0), options.group_size * logits.size(1), finite, flat.device());
    finite = joint->finite();
    if (!joint->share_groups()) joint.reset();
  }
  require_finite(finite);
  const auto group = options.group_size == 0 ? logits.size(0) : std::min(options.group_size, logits.size(0));
  const Scope scope{{flat.size(0), group * logits.size(1)}, joint ? &*joint : nullptr};
  auto& statistics = routing.statistics;
  if (options.routing == RoutingKind::kTokenChoice) {
    choose_experts(routing, scope, options, training);
    add_vmoe_losses(routing, flat, clean.defined() ? clean.flatten(0, 1) : flat, scope, options);
  } else {
    choose_tokens(routing, scope, options, training);
  }
  statistics.kept = at::bincount(routing.assignments.expert, {}, options.experts);
  if (joint) {
    add_joint_means(routing, flat, *joint, options);
    return routing;
  }
  statistics.probability = group_mean(routing.probabilities, scope.groups);
  statistics.z = flat.logsumexp(1).square().mean();
  statistics.entropy = at::special_entr(routing.probabilities.detach()).sum(1).mean();
  return routing;
}

RouterImpl::RouterImpl(std::int64_t dim, RouterOptions options) : options_(options) {
  options_.validate();
  weight = register_parameter("weight", at::empty({dim, options_.experts}));
  glorot_uniform_(weight, static_cast<double>(dim), static_cast<double>(options_.experts));
}

Routing RouterImpl::forward(const at::Tensor& x, const at::Tensor& keys, const ExpertExchange* exchange) {
  check_shape(x, {-1, -1, weight.size(0)}, "router input");
  const c10::impl::ExcludeDispatchKeyGuard without_autocast(c10::autocast_dispatch_keyset);
  const auto type = weight.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto clean = at::matmul(x.to(type), weight.to(type));
  auto options = options_;
  if (keys.defined()) options.group_size = 0;
  if (!is_training() || options_.noise == 0) return route(clean, clean, options, is_training(), exchange);
  const auto noise =
      clean.is_cpu()
          ? keyed_noise(keys.defined() ? keys : token_keys(x), options_.experts).to(type).view(clean.sizes())
          : at::randn_like(clean);
  const auto noisy = at::add(clean, noise, options_.noise / static_cast<double>(options_.experts));
  return route(noisy, clean, options, /*training=*/true, exchange);
}

at::Tensor token_keys(const at::Tensor& x) {
  const auto tokens = x.size(0) * x.size(1), first = ops::batch_part().first_sample * x.size(1);
  return at::arange(first, first + tokens, at::kLong);
}

}  // namespace stoa::nn
