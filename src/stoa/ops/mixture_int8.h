#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "stoa/ops/mixture.h"

namespace stoa::ops {

/// A mixture's experts in 8 bits, for inference on CPUs that multiply int8 (AVX512-VNNI, AMX): a quarter of
/// the bytes of fp32 and about four times its products a second. Weights are rounded to int8 with a scale for
/// each output, rows of x and of the hidden layer to 8 bits with a scale for each row; sums are exact in
/// int32, all else is fp32.
class Int8Experts {
 public:
  /// Whether this CPU and LibTorch can.
  static bool supported();

  /// Rounds fp32 weights on the CPU. Throws DeviceError unless supported().
  explicit Int8Experts(const ExpertWeights& weights);

  /// ops::mixture() without gradients and dropout, for x [tokens, dim] in fp32 on the CPU; settings.backend
  /// is not used.
  at::Tensor mixture(const at::Tensor& x, const Assignments& assignments,
                     const MixtureSettings& settings) const;

  /// Bytes of the rounded weights.
  std::int64_t bytes() const;

 private:
  /// One of the two layers of all experts, [experts, k, n].
  struct Layer {
    std::int64_t k = 0, n = 0, quads = 0;  ///< quads: k / 4, rounded up
    at::Tensor weight;  ///< [experts, panels, quads, 64, 4] int8: four neighbouring k lie together
    at::Tensor scale;   ///< [experts, n]
    at::Tensor sum;     ///< [experts, n]: sums of the int8 weights over k, int32
    at::Tensor bias;    ///< [experts, n]
  };
  static Layer round(const at::Tensor& weight, const at::Tensor& bias);
  static at::Tensor apply(const Layer& layer, const at::Tensor& rows, const std::vector<std::int64_t>& start,
                          const std::vector<std::int64_t>& count, Activation activation);

  Layer in_, out_;
};

}  // namespace stoa::ops
