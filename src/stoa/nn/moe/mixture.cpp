#include "stoa/nn/moe/mixture.h"

#include <ATen/ATen.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/init.h"
#include "stoa/nn/moe/expert_rows.h"
#include "stoa/nn/part_scope.h"

namespace stoa::nn {

namespace {

void check_options(const MixtureOptions& options) {
  if (options.dim < 1 || options.hidden < 1)
    throw ConfigError(format("a mixture of width {} with experts of width {}; both must be at least 1",
                             options.dim, options.hidden));
  if (!(options.dropout >= 0 && options.dropout < 1))
    throw ConfigError(
        format("a mixture's dropout is {}; a number from 0 to below 1 is needed", options.dropout));
}

// A number for each assignment by its token's key: a token goes to an expert once at most.
at::Tensor assignment_keys(const at::Tensor& token_keys, const ops::Assignments& assignments,
                           std::int64_t experts) {
  return token_keys.index_select(0, assignments.token.cpu()) * experts + assignments.expert.cpu();
}

}  // namespace

MixtureImpl::MixtureImpl(MixtureOptions options) : options_(std::move(options)) {
  check_options(options_);
  router = register_module("router", Router(options_.dim, options_.router));
  const auto experts = options_.router.experts;
  w_in = register_parameter("w_in", at::empty({experts, options_.dim, options_.hidden}));
  b_in = register_parameter("b_in", at::empty({experts, options_.hidden}));
  w_out = register_parameter("w_out", at::empty({experts, options_.hidden, options_.dim}));
  b_out = register_parameter("b_out", at::empty({experts, options_.dim}));
  const auto dim = static_cast<double>(options_.dim);
  const auto hidden = static_cast<double>(options_.hidden);
  glorot_uniform_(w_in, dim, hidden);
  glorot_uniform_(w_out, hidden, dim);
  normal_(b_in, 1e-6);
  normal_(b_out, 1e-6);
}

MixtureOutput MixtureImpl::forward(const at::Tensor& x, const at::Tensor& keys) {
  MixtureOutput result;
  result.routing = in_part("router", [&] { return router->forward(x, keys, exchange_.get()); });
  result.statistics = result.routing.statistics;
  const auto& assignments = result.routing.assignments;
  const auto rows = x.flatten(0, 1);
  if (int8_ && !is_training()) {
    const ops::MixtureSettings settings{options_.activation, options_.output_activation, options_.backend};
    result.output =
        int8_->mixture(rows.to(at::kFloat), assignments, settings).to(x.scalar_type()).view(x.sizes());
    return result;
  }
  ExpertDropout dropout;
  if (is_training() && options_.dropout > 0)
    dropout = {options_.dropout,
               assignment_keys(keys.defined() ? keys : token_keys(x), assignments, options_.router.experts)};
  result.output = mix(rows, assignments, dropout).view(x.sizes());
  return result;
}

/// The experts' sums for x [tokens, dim]. With split weights each process has a part of every answer: what
/// all have alike (tokens, gates, last biases) is spread, so that its gradients are whole, and one sum of the
/// tokens' answers makes them whole too.
at::Tensor MixtureImpl::mix(const at::Tensor& x, ops::Assignments assignments, const ExpertDropout& dropout) {
  const ops::MixtureSettings settings{options_.activation, options_.output_activation, options_.backend};
  const auto answers = [&](const at::Tensor& tokens, const ops::ExpertWeights& weights,
                           const ExpertDropout& dropped) {
    return holds_all() ? mix_here(tokens, assignments, weights, settings, dropped)
                       : mix_at_holders(tokens, assignments, options_.router.experts, weights, settings,
                                        dropped, exchange_);
  };
  if (!hidden_units_) return answers(x, {w_in, b_in, w_out, b_out}, dropout);
  assignments.gate = hidden_units_->spread(assignments.gate);
  const auto b_out_once = hidden_units_->spread(b_out) * (hidden_units_->part() == 0 ? 1 : 0);
  auto dropout_here = dropout;
  dropout_here.first_hidden = hidden_units_->part() * b_in.size(1);
  return hidden_units_->sum(answers(hidden_units_->spread(x), {w_in, b_in, w_out, b_out_once}, dropout_here));
}

std::map<std::string, WeightCut> MixtureImpl::cuts() const {
  if (options_.output_activation != ops::Activation::kNone) return {};
  return {{"w_in", {2, 1}}, {"b_in", {1, 1}}, {"w_out", {1, 1}}};
}

void MixtureImpl::require_parts(std::int64_t parts) const {
  if (!cuts().empty() && options_.hidden % parts != 0)
    throw ConfigError(format("`parallel.tensor` is {}, which does not divide the {} hidden units of experts",
                             parts, options_.hidden));
}

void MixtureImpl::use_exchange(std::shared_ptr<const WeightExchange> exchange) {
  hidden_units_ = cuts().empty() ? nullptr : std::move(exchange);
}

std::map<std::string, std::int64_t> MixtureImpl::slices() const {
  const auto experts = options_.router.experts / (exchange_ ? exchange_->holders() : 1);
  return {{"w_in", experts}, {"b_in", experts}, {"w_out", experts}, {"b_out", experts}};
}

void MixtureImpl::round_to_int8() {
  int8_ = std::make_shared<ops::Int8Experts>(ops::ExpertWeights{w_in, b_in, w_out, b_out});
}

void round_experts_to_int8(torch::nn::Module& model) {
  std::int64_t mixtures = 0;
  model.apply([&](torch::nn::Module& module) {
    auto* const mixture = dynamic_cast<MixtureImpl*>(&module);
    if (mixture == nullptr) return;
    mixture->round_to_int8();
    ++mixtures;
  });
  if (mixtures == 0)
    throw ConfigError(
        "the model has no mixture of experts that could be computed in 8 bits; leave --int8 away");
}

}  // namespace stoa::nn
