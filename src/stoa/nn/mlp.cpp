#include "stoa/nn/mlp.h"

#include <ATen/ATen.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/init.h"
#include "stoa/ops/bias_activation.h"
#include "stoa/ops/dropout.h"
#include "stoa/ops/linear.h"
#include "stoa/ops/mlp.h"

namespace stoa::nn {

MlpImpl::MlpImpl(const MlpOptions& options) : options_(options) {
  in = register_module("in", Linear(options.dim, options.hidden));
  out = register_module("out", Linear(options.hidden, options.dim));
  normal_(in->bias, 1e-6);
  normal_(out->bias, 1e-6);
}

void MlpImpl::require_parts(std::int64_t parts) const {
  if (options_.hidden % parts != 0)
    throw ConfigError(
        format("`parallel.tensor` is {}, which does not divide the {} hidden units of perceptrons", parts,
               options_.hidden));
}

at::Tensor MlpImpl::forward(const at::Tensor& x) {
  const double dropout = is_training() ? options_.dropout : 0;
  if (exchange_) return forward_split(x, dropout);
  if (dropout == 0 && options_.output_activation == ops::Activation::kNone)
    return ops::mlp(x, {in->weight, in->bias, out->weight, out->bias}, options_.activation);
  const auto hidden = ops::dropout(ops::linear(x, in->weight, in->bias, options_.activation), dropout);
  return ops::dropout(ops::linear(hidden, out->weight, out->bias, options_.output_activation), dropout);
}

at::Tensor MlpImpl::forward_split(const at::Tensor& x, double dropout) {
  const auto spread = exchange_->spread(x);
  at::Tensor part;
  if (dropout == 0) {
    const auto no_bias = at::zeros_like(out->bias, out->bias.options().requires_grad(false));
    part = ops::mlp(spread, {in->weight, in->bias, out->weight, no_bias}, options_.activation);
  } else {
    const std::int64_t first = exchange_->part() * in->weight.size(0);
    const auto hidden =
        ops::dropout(ops::linear(spread, in->weight, in->bias, options_.activation), dropout, {}, first);
    part = ops::linear(hidden, out->weight, {});
  }
  const auto sum = exchange_->sum(part);
  return ops::dropout(ops::bias_activation(sum, out->bias, options_.output_activation), dropout);
}

}  // namespace stoa::nn
