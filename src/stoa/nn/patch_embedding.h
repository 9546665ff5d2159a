#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

namespace stoa::nn {

/// Cuts images into P x P patches and maps each to `dim` numbers: a convolution of stride P, computed as one
/// product.
class PatchEmbeddingImpl : public torch::nn::Module {
 public:
  /// Throws ConfigError where `patch` does not divide `image_size`.
  PatchEmbeddingImpl(std::int64_t image_size, std::int64_t channels, std::int64_t patch, std::int64_t dim);
  /// images [batch, channels, size, size] -> [batch, (size / P)^2, dim], patches row by row. Throws
  /// ShapeError.
  at::Tensor forward(const at::Tensor& images);
  std::int64_t patches() const { return (image_size_ / patch_) * (image_size_ / patch_); }

  at::Tensor weight;  ///< [dim, channels, P, P], U(+-sqrt(6 / (P^2 (channels + dim))))
  at::Tensor bias;    ///< [dim]

 private:
  std::int64_t image_size_, channels_, patch_;
};
TORCH_MODULE(PatchEmbedding);

}  // namespace stoa::nn
