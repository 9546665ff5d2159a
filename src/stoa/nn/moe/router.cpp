#include "stoa/nn/moe/router.h"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/init.h"
#include "stoa/nn/moe/selection.h"
#include "stoa/tensor/shape.h"

namespace stoa::nn {

namespace {

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

void choose_experts(Routing& routing, const RoutingGroups& groups, const RouterOptions& options,
                    bool training) {
  const auto& probabilities = routing.probabilities;
  const auto k = options.top_k;
  routing.index = top_experts(probabilities.detach(), k);
  auto gates = probabilities.gather(1, routing.index);
  const auto capacity = capacities(groups, options, training);
  routing.slot =
      fill_slots(routing.index, gates.detach().select(1, 0), groups, options.experts, options.fill, capacity);
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
  statistics.fraction = share_by_group(count_by_group(routing.index, groups, options.experts), probabilities);
  statistics.drop_rate = at::scalar_tensor(
      1.0 - static_cast<double>(kept.size(0)) / static_cast<double>(total), probabilities.options());
}

void choose_tokens(Routing& routing, const RoutingGroups& groups, const RouterOptions& options,
                   bool training) {
  const auto& probabilities = routing.probabilities;
  auto& [token, expert, gate] = routing.assignments;
  const auto capacity = capacities(groups, options, training);
  std::tie(token, expert) = top_tokens(probabilities.detach(), groups, capacity);
  gate = probabilities.flatten().index_select(0, token * options.experts + expert);
  if (options.renormalise_gates)
    gate = gate / at::zeros({groups.tokens}, gate.options()).index_add(0, token, gate).index_select(0, token);
  auto& statistics = routing.statistics;
  statistics.fraction = at::full({groups.count(), options.experts},
                                 1.0 / static_cast<double>(options.experts), probabilities.options());
  statistics.drop_rate = at::bincount(token, {}, groups.tokens).eq(0).to(probabilities.scalar_type()).mean();
}

// Squared coefficient of variation over experts, mean over groups: [groups, E] -> scalar.
at::Tensor squared_variation(const at::Tensor& values) {
  return (values.var(1, /*unbiased=*/false) / values.mean(1).square()).mean();
}

// V-MoE's two losses (2.4): experts should be equally important, and equally likely to be chosen under fresh
// noise.
void add_vmoe_losses(Routing& routing, const at::Tensor& noisy, const at::Tensor& clean,
                     const RoutingGroups& groups, const RouterOptions& options) {
  auto& statistics = routing.statistics;
  if (options.importance_weight > 0)
    statistics.importance = squared_variation(group_mean(at::softmax(clean, 1), groups));
  if (options.load_weight > 0) {
    const double deviation = options.noise / static_cast<double>(options.experts);
    const auto threshold = noisy.gather(1, routing.index.narrow(1, options.top_k - 1, 1));
    const auto chance = at::special_ndtr((clean - threshold) / deviation);  // 1 - Phi(z) = Phi(-z)
    statistics.load_loss = squared_variation(group_mean(chance, groups));
  }
}

}  // namespace

Routing route(const at::Tensor& logits, const at::Tensor& clean, const RouterOptions& options,
              bool training) {
  options.validate();
  check_shape(logits, {-1, -1, options.experts}, "router logits");
  if (logits.scalar_type() != at::kFloat && logits.scalar_type() != at::kDouble)
    throw Error(format("router logits are of type {}; float or double is needed",
                       c10::toString(logits.scalar_type())));
  if (logits.numel() == 0)
    throw ShapeError(format("router logits have shape {}; no token to route", shape_text(logits.sizes())));
  const RoutingGroups groups{
      logits.size(0) * logits.size(1),
      (options.group_size == 0 ? logits.size(0) : std::min(options.group_size, logits.size(0))) *
          logits.size(1)};
  const auto flat = logits.flatten(0, 1);

  Routing routing;
  routing.probabilities = at::softmax(flat, 1);
  if (!std::isfinite(routing.probabilities.detach().sum().item<double>()))
    throw NumericError(
        "router: the gates are not finite, because logits are NaN or infinite; lower the learning rate, clip "
        "gradients "
        "or look for non-finite values in the input");
  auto& statistics = routing.statistics;
  if (options.routing == RoutingKind::kTokenChoice) {
    choose_experts(routing, groups, options, training);
    add_vmoe_losses(routing, flat, clean.defined() ? clean.flatten(0, 1) : flat, groups, options);
  } else {
    choose_tokens(routing, groups, options, training);
  }
  statistics.probability = group_mean(routing.probabilities, groups);
  statistics.z = flat.logsumexp(1).square().mean();
  statistics.kept = at::bincount(routing.assignments.expert, {}, options.experts);
  statistics.entropy = at::special_entr(routing.probabilities.detach()).sum(1).mean();
  return routing;
}

RouterImpl::RouterImpl(std::int64_t dim, RouterOptions options) : options_(options) {
  options_.validate();
  weight = register_parameter("weight", at::empty({dim, options_.experts}));
  glorot_uniform_(weight, static_cast<double>(dim), static_cast<double>(options_.experts));
}

Routing RouterImpl::forward(const at::Tensor& x) {
  check_shape(x, {-1, -1, weight.size(0)}, "router input");
  const c10::impl::ExcludeDispatchKeyGuard without_autocast(c10::autocast_dispatch_keyset);
  const auto type = weight.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto clean = at::matmul(x.to(type), weight.to(type));
  if (!is_training() || options_.noise == 0) return route(clean, clean, options_, is_training());
  const auto noisy =
      at::add(clean, at::randn_like(clean), options_.noise / static_cast<double>(options_.experts));
  return route(noisy, clean, options_, /*training=*/true);
}

}  // namespace stoa::nn
