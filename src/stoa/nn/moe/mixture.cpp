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
  const ops::MixtureSettings settings{options_.activation, options_.output_activation, options_.backend};
  const auto rows = x.flatten(0, 1);
  if (int8_ && !is_training()) {
    result.output =
        int8_->mixture(rows.to(at::kFloat), assignments, settings).to(x.scalar_type()).view(x.sizes());
    return result;
  }
  const auto experts = options_.router.experts;
  ExpertDropout dropout;
  if (is_training() && options_.dropout > 0)
    dropout = {options_.dropout,
               assignment_keys(keys.defined() ? keys : token_keys(x), assignments, experts)};
  const ops::ExpertWeights weights{w_in, b_in, w_out, b_out};
  const bool all_here = !exchange_ || exchange_->holders() == 1;
  const auto output = all_here
                          ? mix_here(rows, assignments, weights, settings, dropout)
                          : mix_at_holders(rows, assignments, experts, weights, settings, dropout, exchange_);
  result.output = output.view(x.sizes());
  return result;
}

std::map<std::string, std::int64_t> MixtureImpl::slices() const {
  const auto experts = w_in.size(0);
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
