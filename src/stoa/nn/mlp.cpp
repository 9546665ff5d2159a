#include "stoa/nn/mlp.h"

#include <ATen/ATen.h>

#include "stoa/nn/init.h"
#include "stoa/ops/mixture_experts.h"

namespace stoa::nn {

MlpImpl::MlpImpl(const MlpOptions& options) : options_(options) {
  in = register_module("in", Linear(options.dim, options.hidden));
  out = register_module("out", Linear(options.hidden, options.dim));
  normal_(in->bias, 1e-6);
  normal_(out->bias, 1e-6);
}

at::Tensor MlpImpl::forward(const at::Tensor& x) {
  auto hidden = ops::activate(in->forward(x), options_.activation);
  if (options_.dropout > 0) hidden = at::dropout(hidden, options_.dropout, is_training());
  auto y = ops::activate(out->forward(hidden), options_.output_activation);
  if (options_.dropout > 0) y = at::dropout(y, options_.dropout, is_training());
  return y;
}

}  // namespace stoa::nn
