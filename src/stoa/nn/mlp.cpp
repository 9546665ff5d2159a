#include "stoa/nn/mlp.h"

#include <ATen/ATen.h>

#include "stoa/nn/init.h"
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

at::Tensor MlpImpl::forward(const at::Tensor& x) {
  const double dropout = is_training() ? options_.dropout : 0;
  if (dropout == 0 && options_.output_activation == ops::Activation::kNone)
    return ops::mlp(x, {in->weight, in->bias, out->weight, out->bias}, options_.activation);
  const auto hidden = ops::dropout(ops::linear(x, in->weight, in->bias, options_.activation), dropout);
  return ops::dropout(ops::linear(hidden, out->weight, out->bias, options_.output_activation), dropout);
}

}  // namespace stoa::nn
