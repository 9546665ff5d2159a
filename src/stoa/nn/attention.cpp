#include "stoa/nn/attention.h"

#include <ATen/ATen.h>

#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/init.h"
#include "stoa/ops/attention.h"
#include "stoa/ops/linear.h"

namespace stoa::nn {

AttentionImpl::AttentionImpl(const AttentionOptions& options) : options_(options) {
  const std::int64_t dim = options.dim, heads = options.heads;
  if (heads < 1 || dim % heads != 0)
    throw ConfigError(
        format("`heads` is {} but must divide `dim` = {}; choose a divisor of {}", heads, dim, dim));
  qkv_weight = register_parameter("qkv_weight", at::empty({3 * dim, dim}));
  qkv_bias = register_parameter("qkv_bias", at::empty({3 * dim}));
  out = register_module("out", Linear(dim, dim));

  constant_(qkv_bias, 0);
  const double d = static_cast<double>(dim), h = static_cast<double>(heads);
  switch (options.init) {
    case AttentionInit::kGlorot:
      glorot_uniform_(qkv_weight, d, d);
      break;
    case AttentionInit::kFused:
      glorot_uniform_(qkv_weight, d, 3 * d);
      break;
    case AttentionInit::kCode:
      glorot_uniform_(qkv_weight, d * h, d * d / h);
      glorot_uniform_(out->weight, d, d * h);
      break;
  }
}

at::Tensor AttentionImpl::forward(const at::Tensor& x) {
  const auto qkv = ops::linear(x, qkv_weight, qkv_bias);
  return out->forward(ops::attention(qkv, options_.heads, is_training() ? options_.dropout : 0.0));
}

}  // namespace stoa::nn
