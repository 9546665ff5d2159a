#include "stoa/nn/mlp.h"

#include <ATen/ATen.h>

#include "stoa/nn/init.h"

namespace stoa::nn {

at::Tensor activate(const at::Tensor& x, ops::Activation activation) {
  switch (activation) {
    case ops::Activation::kNone: return x;
    case ops::Activation::kGeluTanh: return at::gelu(x, "tanh");
    case ops::Activation::kGeluErf: return at::gelu(x, "none");
    case ops::Activation::kRelu: return at::relu(x);
  }
  return x;
}

MlpImpl::MlpImpl(const MlpOptions& options) : options_(options) {
  in = register_module("in", Linear(options.dim, options.hidden));
  out = register_module("out", Linear(options.hidden, options.dim));
  normal_(in->bias, 1e-6);
  normal_(out->bias, 1e-6);
}

at::Tensor MlpImpl::forward(const at::Tensor& x) {
  auto hidden = activate(in->forward(x), options_.activation);
  if (options_.dropout > 0) hidden = at::dropout(hidden, options_.dropout, is_training());
  auto y = activate(out->forward(hidden), options_.output_activation);
  if (options_.dropout > 0) y = at::dropout(y, options_.dropout, is_training());
  return y;
}

}  // namespace stoa::nn
