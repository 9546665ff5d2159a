#pragma once

#include <memory>

#include "stoa/data/image/dataset.h"
#include "stoa/data/loader.h"

namespace stoa {

/// Training batches of a data set, augmented: `images` [b, channels, size, size] fp32 normalised, `labels`
/// [b] int64; with mixup or cutmix also `labels_mixed` [b] int64 and `share` [b] fp32, the share of `labels`
/// in each target (the rest is `labels_mixed`'s). The partner of a sample comes from a second, independently
/// shuffled stream (widenet.md 3).
std::unique_ptr<BatchSource> train_image_batches(std::shared_ptr<const ImageDataset> dataset,
                                                 const ImageDataOptions& options, const BatchPlan& plan);

/// Evaluation batches in order, not augmented: `images`, `labels`, `index` [b] int64.
std::unique_ptr<BatchSource> test_image_batches(std::shared_ptr<const ImageDataset> dataset,
                                                const ImageDataOptions& options, const BatchPlan& plan);

/// One image as the model sees it in evaluation: [channels, size, size] fp32.
at::Tensor image_to_tensor(const Image& image, const ImageDataOptions& options);

/// The reverse, for showing: a normalised [channels, size, size] tensor as an 8-bit image.
Image tensor_to_image(const at::Tensor& tensor, const ImageDataOptions& options);

}  // namespace stoa
