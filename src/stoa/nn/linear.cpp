#include "stoa/nn/linear.h"

#include <ATen/ATen.h>

#include "stoa/nn/init.h"
#include "stoa/ops/linear.h"

namespace stoa::nn {

LinearImpl::LinearImpl(std::int64_t in, std::int64_t out)
    : weight(register_parameter("weight", at::empty({out, in}))),
      bias(register_parameter("bias", at::empty({out}))) {
  glorot_uniform_(weight, static_cast<double>(in), static_cast<double>(out));
  constant_(bias, 0);
}

at::Tensor LinearImpl::forward(const at::Tensor& x) {
  return ops::linear(x, weight, bias);
}

}  // namespace stoa::nn
