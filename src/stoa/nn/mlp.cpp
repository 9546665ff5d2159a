#include "stoa/nn/mlp.h"

#include <ATen/ATen.h>

#include "stoa/nn/init.h"
#include "stoa/ops/linear.h"

namespace stoa::nn {

MlpImpl::MlpImpl(const MlpOptions& options) : options_(options) {
  in = register_module("in", Linear(options.dim, options.hidden));
  out = register_module("out", Linear(options.hidden, options.dim));
  normal_(in->bias, 1e-6);
  normal_(out->bias, 1e-6);
}

at::Tensor MlpImpl::forward(const at::Tensor& x) {
  auto hidden = ops::linear(x, in->weight, in->bias, options_.activation);
  if (options_.dropout > 0) hidden = at::dropout(hidden, options_.dropout, is_training());
  auto y = ops::linear(hidden, out->weight, out->bias, options_.output_activation);
  if (options_.dropout > 0) y = at::dropout(y, options_.dropout, is_training());
  return y;
}

}  // namespace stoa::nn
