#include "stoa/data/image/pipeline.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/epoch_orders.h"
#include "stoa/data/image/augment.h"
#include "stoa/data/image/readers.h"

namespace stoa {
namespace {

// Seeds of the second, independently shuffled stream and of the mixing itself.
enum Purpose : std::uint64_t { kPartnerOrder = 301, kPartner = 302, kMix = 303 };

double per_channel(const std::vector<double>& values, std::int64_t channel) {
  return values.size() == 1 ? values[0] : values.at(channel);
}

/// 8-bit samples as normalised floats: looked up, as there are only 256 of them.
class Normalizer {
 public:
  explicit Normalizer(const ImageDataOptions& options) : channels_(options.channels) {
    for (std::int64_t c = 0; c < channels_; ++c)
      for (int v = 0; v < 256; ++v)
        table_[c][v] = static_cast<float>((v / 255.0 - per_channel(options.mean, c)) /
                                          per_channel(options.deviation, c));
  }

  /// Interleaved [size, channels] to planar [channels, size].
  void write(const std::uint8_t* pixels, std::int64_t size, float* to) const {
    for (std::int64_t c = 0; c < channels_; ++c, to += size)
      for (std::int64_t i = 0; i < size; ++i) to[i] = table_[c][pixels[i * channels_ + c]];
  }

 private:
  std::int64_t channels_;
  std::array<std::array<float, 256>, 3> table_;
};

/// What both kinds of batches do with one sample.
class Reader {
 public:
  Reader(std::shared_ptr<const ImageDataset> dataset, ImageDataOptions options)
      : dataset_(std::move(dataset)), options_(std::move(options)), normalizer_(options_) {}

  std::int64_t stride() const { return options_.channels * plane(); }

  at::Tensor images(std::int64_t count) const {
    return at::empty({count, options_.channels, options_.image_size, options_.image_size}, at::kFloat);
  }

  /// Writes image `index` to `to` and returns its label. `random` is null in evaluation.
  std::int64_t read(std::int64_t index, RandomStream* random, float* to) const {
    const auto seen = dataset_->view(index);
    const bool fits = seen && seen->height == options_.image_size && seen->width == options_.image_size &&
                      seen->channels == options_.channels;
    if (fits && !(random && augments())) {
      normalizer_.write(seen->pixels, plane(), to);
      return seen->label;
    }
    LabeledImage sample = dataset_->get(index);
    Image image = prepare_image(std::move(sample.image), options_);
    if (random) image = augment(std::move(image), options_.augment, *random);
    normalizer_.write(image.pixels.data(), plane(), to);
    return sample.label;
  }

 private:
  std::int64_t plane() const { return options_.image_size * options_.image_size; }

  bool augments() const {
    const AugmentOptions& a = options_.augment;
    return a.crop != TrainCrop::kNone || a.flip || a.randaugment_operations > 0 || a.erasing > 0;
  }

  std::shared_ptr<const ImageDataset> dataset_;
  ImageDataOptions options_;
  Normalizer normalizer_;
};

/// Mixes `partner` [channels, size, size] into `image`; returns the share that `image` keeps.
float mix(float* image, const float* partner, const ImageDataOptions& options, RandomStream& random) {
  const std::int64_t size = options.image_size;
  const double mixup = options.augment.mixup, cutmix = options.augment.cutmix;
  const bool cut = cutmix > 0 && (mixup == 0 || random.bits() & 1);
  const double share = cut ? random.beta(cutmix, cutmix) : random.beta(mixup, mixup);
  if (!cut) {
    const auto keep = static_cast<float>(share);
    for (std::int64_t i = 0; i < options.channels * size * size; ++i)
      image[i] = keep * image[i] + (1 - keep) * partner[i];
    return keep;
  }
  // a square of the share's area, its centre anywhere; what lies outside the image does not count
  const auto reach = static_cast<std::int64_t>(static_cast<double>(size) * std::sqrt(1 - share) / 2);
  const std::int64_t row = random.integer(0, size), column = random.integer(0, size);
  const std::int64_t top = std::max<std::int64_t>(0, row - reach), bottom = std::min(size, row + reach);
  const std::int64_t left = std::max<std::int64_t>(0, column - reach), right = std::min(size, column + reach);
  for (std::int64_t c = 0; c < options.channels; ++c)
    for (std::int64_t y = top; y < bottom; ++y) {
      const std::int64_t start = (c * size + y) * size;
      std::copy(partner + start + left, partner + start + right, image + start + left);
    }
  return 1 - static_cast<float>((bottom - top) * (right - left)) / static_cast<float>(size * size);
}

void check_dataset(const std::shared_ptr<const ImageDataset>& dataset, const ImageDataOptions& options) {
  options.validate();
  if (!dataset || dataset->size() == 0)
    throw DataError(format("{}: no images; check data.path and the limits", options.path));
}

}  // namespace

std::unique_ptr<BatchSource> train_image_batches(std::shared_ptr<const ImageDataset> dataset,
                                                 const ImageDataOptions& options, const BatchPlan& plan) {
  check_dataset(dataset, options);
  const std::int64_t size = dataset->size();
  const auto reader = std::make_shared<const Reader>(std::move(dataset), options);
  // Passing all samples in a second random order is, for each sample, to have a random partner that no other
  // has.
  const auto partners = std::make_shared<EpochOrders>(size, mix_seed({plan.seed, kPartnerOrder}));
  const bool mixes = options.augment.mixup > 0 || options.augment.cutmix > 0;
  return shuffled_batches(size, plan, [=](const std::vector<SampleKey>& keys) {
    const auto count = static_cast<std::int64_t>(keys.size());
    Batch batch{{}, count};
    at::Tensor images = reader->images(count), labels = at::empty({count}, at::kLong);
    at::Tensor mixed, shares;
    std::vector<float> partner(mixes ? reader->stride() : 0);
    if (mixes) mixed = at::empty({count}, at::kLong), shares = at::empty({count}, at::kFloat);
    for (std::int64_t i = 0; i < count; ++i) {
      RandomStream random(keys[i].seed);
      float* to = images.data_ptr<float>() + i * reader->stride();
      labels.data_ptr<std::int64_t>()[i] = reader->read(keys[i].index, &random, to);
      if (!mixes) continue;
      const std::int64_t other = (*partners->order(keys[i].epoch))[keys[i].index];
      RandomStream partner_random(mix_seed({keys[i].seed, kPartner})),
          mix_random(mix_seed({keys[i].seed, kMix}));
      mixed.data_ptr<std::int64_t>()[i] = reader->read(other, &partner_random, partner.data());
      shares.data_ptr<float>()[i] = mix(to, partner.data(), options, mix_random);
    }
    batch.tensors = {{"images", images}, {"labels", labels}};
    if (mixes) batch.tensors.insert({{"labels_mixed", mixed}, {"share", shares}});
    return batch;
  });
}

std::unique_ptr<BatchSource> test_image_batches(std::shared_ptr<const ImageDataset> dataset,
                                                const ImageDataOptions& options, const BatchPlan& plan) {
  check_dataset(dataset, options);
  const std::int64_t size = dataset->size();
  const auto reader = std::make_shared<const Reader>(std::move(dataset), options);
  return ordered_batches(size, plan, [=](const std::vector<SampleKey>& keys) {
    const auto count = static_cast<std::int64_t>(keys.size());
    at::Tensor images = reader->images(count), labels = at::empty({count}, at::kLong);
    at::Tensor index = at::empty({count}, at::kLong);
    for (std::int64_t i = 0; i < count; ++i) {
      index.data_ptr<std::int64_t>()[i] = keys[i].index;
      labels.data_ptr<std::int64_t>()[i] =
          reader->read(keys[i].index, nullptr, images.data_ptr<float>() + i * reader->stride());
    }
    return Batch{{{"images", images}, {"labels", labels}, {"index", index}}, count};
  });
}

at::Tensor image_to_tensor(const Image& image, const ImageDataOptions& options) {
  const Image ready = prepare_image(image, options);
  at::Tensor tensor = at::empty({options.channels, options.image_size, options.image_size}, at::kFloat);
  Normalizer(options).write(ready.pixels.data(), ready.height * ready.width, tensor.data_ptr<float>());
  return tensor;
}

Image tensor_to_image(const at::Tensor& tensor, const ImageDataOptions& options) {
  if (tensor.dim() != 3 || tensor.size(0) != options.channels)
    throw ShapeError(
        format("an image tensor has {} dimensions and {} channels; needed are [{}, height, width]",
               tensor.dim(), tensor.dim() ? tensor.size(0) : 0, options.channels));
  const at::Tensor values = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
  Image image{tensor.size(1), tensor.size(2), options.channels, {}};
  const std::int64_t plane = image.height * image.width;
  image.pixels.resize(plane * image.channels);
  for (std::int64_t c = 0; c < image.channels; ++c)
    for (std::int64_t i = 0; i < plane; ++i) {
      const double value = values.data_ptr<float>()[c * plane + i] * per_channel(options.deviation, c) +
                           per_channel(options.mean, c);
      image.pixels[i * image.channels + c] =
          static_cast<std::uint8_t>(std::clamp(value * 255, 0.0, 255.0) + 0.5);
    }
  return image;
}

}  // namespace stoa
