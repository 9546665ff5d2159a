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

/// Normal cut at two deviations and widened to sqrt(2 / (fan_in + fan_out)) again, as Keras' glorot_normal.
void glorot_normal_(const at::Tensor& tensor, double fan_in, double fan_out);

void constant_(const at::Tensor& tensor, double value);

/// While one lives, the initialisers of this thread do nothing: for models that are only counted, or whose
/// weights are read from a file. Memory that is never written costs nothing.
class SkipInitialisation {
 public:
  SkipInitialisation();
  ~SkipInitialisation();
  SkipInitialisation(const SkipInitialisation&) = delete;
  SkipInitialisation& operator=(const SkipInitialisation&) = delete;
};

}  // namespace stoa::nn
