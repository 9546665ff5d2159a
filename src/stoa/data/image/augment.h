#pragma once

#include <cstdint>
#include <vector>

#include "stoa/base/random.h"
#include "stoa/data/image/image.h"
#include "stoa/data/image/options.h"

// Random changes to one training image. All randomness comes from the stream that is passed in.
namespace stoa {

/// The 17 equally likely choices of RandAugment.
enum class RandAugmentOp {
  kIdentity,
  kAutoContrast,
  kEqualize,
  kInvert,
  kRotate,
  kPosterize,
  kSolarize,
  kColor,
  kContrast,
  kBrightness,
  kSharpness,
  kShearX,
  kShearY,
  kTranslateX,
  kTranslateY,
  kCutout,
  kSolarizeAdd
};
constexpr int kRandAugmentOps = 17;

/// One operation with strength `magnitude` (10 is the nominal full range, m = magnitude / 10): rotate +-30 m
/// degrees, shear
/// +-0.3 m, translate +-100 m and cutout 40 m pixels of an image of 224 (scaled with its width), colour,
/// contrast, brightness and sharpness factor 0.1 + 1.8 m, posterize to 4 m bits, solarize from 256 m,
/// solarize-add 110 m below 128. The stream draws signs and cutout's place.
Image apply(RandAugmentOp op, Image image, double magnitude, RandomStream& random);

/// `operations` operations, drawn one by one.
Image rand_augment(Image image, std::int64_t operations, double magnitude, RandomStream& random);

struct PixelBox {
  std::int64_t top = 0, left = 0, height = 0, width = 0;
};

/// A box within an image: width / height uniform in `aspect`, height uniform such that the area stays in
/// `area` (shares of the image) and the box inside, then its place uniform. The whole image where ten draws
/// do not fit.
PixelBox random_box(std::int64_t height, std::int64_t width, const std::vector<double>& area,
                    const std::vector<double>& aspect, RandomStream& random);

/// The image shifted by up to `padding` pixels in both directions, zeros where it leaves a gap.
Image padded_crop(const Image& image, std::int64_t padding, RandomStream& random);

/// Fills one box (area 0.02 to 0.33 of the image, aspect 0.3 to 3.3) with random bytes.
Image erase(Image image, RandomStream& random);

/// All of it in order: RandAugment, crop, flip, erasing.
Image augment(Image image, const AugmentOptions& options, RandomStream& random);

}  // namespace stoa
