#pragma once

#include <ATen/core/Tensor.h>

namespace stoa::nn {

/// In-place initialisers. All draw from the default generator of the tensor's device and record no gradient.

/// U(-bound, bound) with bound = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010).
void glorot_uniform_(const at::Tensor& tensor, double fan_in, double fan_out);

/// N(0, deviation^2)
void normal_(const at::Tensor& tensor, double deviation);

/// Normal of the given deviation cut at two deviations.
void truncated_normal_(const at::Tensor& tensor, double deviation);

void constant_(const at::Tensor& tensor, double value);

}  // namespace stoa::nn
