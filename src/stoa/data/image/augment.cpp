#include "stoa/data/image/augment.h"

#include <algorithm>
#include <cmath>

#include "stoa/data/image/effects.h"

namespace stoa {

Image apply(RandAugmentOp op, Image image, double magnitude, RandomStream& random) {
  const double m = magnitude / 10, width = static_cast<double>(image.width) / 224;
  const double factor = 0.1 + 1.8 * m;
  const auto either_sign = [&](double value) { return random.bits() & 1 ? value : -value; };
  const auto pixels = [&](double value) { return static_cast<std::int64_t>(std::lround(value * width)); };
  switch (op) {
    case RandAugmentOp::kIdentity:
      return image;
    case RandAugmentOp::kAutoContrast:
      return effects::autocontrast(std::move(image));
    case RandAugmentOp::kEqualize:
      return effects::equalize(std::move(image));
    case RandAugmentOp::kInvert:
      return effects::invert(std::move(image));
    case RandAugmentOp::kRotate:
      return effects::rotate(image, either_sign(30 * m));
    case RandAugmentOp::kPosterize:
      return effects::posterize(std::move(image), static_cast<int>(4 * m));
    case RandAugmentOp::kSolarize:
      return effects::solarize(std::move(image), static_cast<int>(256 * m));
    case RandAugmentOp::kColor:
      return effects::color(std::move(image), factor);
    case RandAugmentOp::kContrast:
      return effects::contrast(std::move(image), factor);
    case RandAugmentOp::kBrightness:
      return effects::brightness(std::move(image), factor);
    case RandAugmentOp::kSharpness:
      return effects::sharpness(std::move(image), factor);
    case RandAugmentOp::kShearX:
      return effects::shear_x(image, either_sign(0.3 * m));
    case RandAugmentOp::kShearY:
      return effects::shear_y(image, either_sign(0.3 * m));
    case RandAugmentOp::kTranslateX:
      return effects::translate_x(image, pixels(either_sign(100 * m)));
    case RandAugmentOp::kTranslateY:
      return effects::translate_y(image, pixels(either_sign(100 * m)));
    case RandAugmentOp::kCutout: {
      const std::int64_t row = random.integer(0, image.height), column = random.integer(0, image.width);
      return effects::cutout(std::move(image), row, column, pixels(40 * m));
    }
    case RandAugmentOp::kSolarizeAdd:
      return effects::solarize_add(std::move(image), static_cast<int>(110 * m));
  }
  return image;
}

Image rand_augment(Image image, std::int64_t operations, double magnitude, RandomStream& random) {
  for (std::int64_t i = 0; i < operations; ++i) {
    const auto op = static_cast<RandAugmentOp>(random.integer(0, kRandAugmentOps));
    image = apply(op, std::move(image), magnitude, random);
  }
  return image;
}

PixelBox random_box(std::int64_t height, std::int64_t width, const std::vector<double>& area,
                    const std::vector<double>& aspect, RandomStream& random) {
  const auto whole = static_cast<double>(height * width);
  for (int draw = 0; draw < 10; ++draw) {
    const double ratio = random.uniform(aspect[0], aspect[1]);
    const double shortest = std::sqrt(area[0] * whole / ratio);
    const double tallest = std::min({std::sqrt(area[1] * whole / ratio), static_cast<double>(height),
                                     static_cast<double>(width) / ratio});
    const double tall = shortest < tallest ? random.uniform(shortest, tallest) : tallest;
    const auto h = static_cast<std::int64_t>(std::lround(tall)),
               w = static_cast<std::int64_t>(std::lround(tall * ratio));
    const auto covered = static_cast<double>(h * w);
    if (h < 1 || w < 1 || h > height || w > width || covered < area[0] * whole || covered > area[1] * whole)
      continue;
    return {random.integer(0, height - h + 1), random.integer(0, width - w + 1), h, w};
  }
  return {0, 0, height, width};
}

Image padded_crop(const Image& image, std::int64_t padding, RandomStream& random) {
  const std::int64_t down = random.integer(-padding, padding + 1),
                     right = random.integer(-padding, padding + 1);
  Image result{image.height, image.width, image.channels, std::vector<std::uint8_t>(image.pixels.size())};
  const std::int64_t left = std::max<std::int64_t>(0, right),
                     end = std::min(image.width, image.width + right);
  for (std::int64_t y = std::max<std::int64_t>(0, down); y < std::min(image.height, image.height + down); ++y)
    if (left < end)
      std::copy_n(image.at(y - down, left - right), (end - left) * image.channels, result.at(y, left));
  return result;
}

Image erase(Image image, RandomStream& random) {
  const PixelBox box = random_box(image.height, image.width, {0.02, 0.33}, {0.3, 3.3}, random);
  if (box.height == image.height && box.width == image.width) return image;  // too small to hold such a box
  for (std::int64_t y = box.top; y < box.top + box.height; ++y) {
    std::uint8_t* row = image.at(y, box.left);
    for (std::int64_t i = 0; i < box.width * image.channels; ++i)
      row[i] = static_cast<std::uint8_t>(random.bits() >> 56);
  }
  return image;
}

Image augment(Image image, const AugmentOptions& options, RandomStream& random) {
  image =
      rand_augment(std::move(image), options.randaugment_operations, options.randaugment_magnitude, random);
  if (options.crop == TrainCrop::kDistorted) {
    const PixelBox box =
        random_box(image.height, image.width, options.crop_area, options.crop_aspect, random);
    image = resize_box(image, static_cast<double>(box.top), static_cast<double>(box.left),
                       static_cast<double>(box.height), static_cast<double>(box.width), image.height,
                       image.width);
  } else if (options.crop == TrainCrop::kPadded) {
    image = padded_crop(image, options.crop_padding, random);
  }
  if (options.flip && random.bits() & 1) image = effects::flip(std::move(image));
  if (options.erasing > 0 && random.uniform() < options.erasing) image = erase(std::move(image), random);
  return image;
}

}  // namespace stoa
