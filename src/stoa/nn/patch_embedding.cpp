#include "stoa/nn/patch_embedding.h"

#include <ATen/ATen.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/init.h"
#include "stoa/ops/linear.h"
#include "stoa/tensor/shape.h"

namespace stoa::nn {

PatchEmbeddingImpl::PatchEmbeddingImpl(std::int64_t image_size, std::int64_t channels, std::int64_t patch,
                                       std::int64_t dim)
    : image_size_(image_size), channels_(channels), patch_(patch) {
  if (patch < 1 || image_size % patch != 0)
    throw ConfigError(format("`model.patch` is {} but must divide `data.image_size` = {}; change one of them",
                             patch, image_size));
  weight = register_parameter("weight", at::empty({dim, channels, patch, patch}));
  bias = register_parameter("bias", at::empty({dim}));
  constant_(bias, 0);
  const double area = static_cast<double>(patch * patch);
  glorot_uniform_(weight, area * static_cast<double>(channels), area * static_cast<double>(dim));
}

at::Tensor PatchEmbeddingImpl::forward(const at::Tensor& images) {
  check_shape(images, {-1, channels_, image_size_, image_size_}, "images");
  const std::int64_t batch = images.size(0), side = image_size_ / patch_;
  const auto patches = images.view({batch, channels_, side, patch_, side, patch_})
                           .permute({0, 2, 4, 1, 3, 5})
                           .reshape({batch, side * side, channels_ * patch_ * patch_});
  return ops::linear(patches, weight.flatten(1), bias);
}

}  // namespace stoa::nn
