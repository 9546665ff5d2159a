#include "stoa/nn/moe/mixture.h"

#include <ATen/ATen.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/init.h"
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

// Zeros with probability p, the rest scaled so that the mean stays 1.
at::Tensor dropout_mask(std::int64_t rows, std::int64_t width, double p, const at::TensorOptions& options) {
  return at::empty({rows, width}, options).bernoulli_(1 - p).div_(1 - p);
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

MixtureOutput MixtureImpl::forward(const at::Tensor& x) {
  MixtureOutput result;
  result.routing = in_part("router", [&] { return router->forward(x); });
  result.statistics = result.routing.statistics;
  const auto& assignments = result.routing.assignments;
  const ops::MixtureSettings settings{options_.activation, options_.output_activation, options_.backend};
  if (int8_ && !is_training()) {
    result.output = int8_->mixture(x.flatten(0, 1).to(at::kFloat), assignments, settings)
                        .to(x.scalar_type())
                        .view(x.sizes());
    return result;
  }
  at::Tensor hidden_mask;
  at::Tensor output_mask;
  if (is_training() && options_.dropout > 0) {
    const auto mask = [&](std::int64_t width) {
      return dropout_mask(assignments.token.size(0), width, options_.dropout, w_in.options());
    };
    hidden_mask = mask(options_.hidden);
    output_mask = mask(options_.dim);
  }
  result.output = ops::mixture(x.flatten(0, 1), assignments, {w_in, b_in, w_out, b_out}, settings,
                               hidden_mask, output_mask)
                      .view(x.sizes());
  return result;
}

std::map<std::string, std::int64_t> MixtureImpl::slices() const {
  const auto experts = options_.router.experts;
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
