#include "stoa/data/image/augment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "stoa/data/image/effects.h"

namespace stoa {
namespace {

using Bytes = std::vector<std::uint8_t>;

/// An image in which no two neighbours are alike.
Image picture(std::int64_t size = 16, std::int64_t channels = 3) {
  Image image{size, size, channels, Bytes(size * size * channels)};
  for (std::size_t i = 0; i < image.pixels.size(); ++i)
    image.pixels[i] = static_cast<std::uint8_t>(i * 37 + i / 50 * 11);
  return image;
}

Image applied(RandAugmentOp op, const Image& image, double magnitude, std::uint64_t seed = 0) {
  RandomStream random(seed);
  return apply(op, image, magnitude, random);
}

/// What `op` makes of the image over many seeds.
std::set<Bytes> outcomes(RandAugmentOp op, const Image& image, double magnitude) {
  std::set<Bytes> found;
  for (std::uint64_t seed = 0; seed < 40; ++seed) found.insert(applied(op, image, magnitude, seed).pixels);
  return found;
}

TEST(RandAugment, HasThePublishedStrengthsAtMagnitude15) {
  const Image image = picture(224);
  using Op = RandAugmentOp;
  EXPECT_EQ(applied(Op::kIdentity, image, 15).pixels, image.pixels);
  EXPECT_EQ(applied(Op::kAutoContrast, image, 15).pixels, effects::autocontrast(image).pixels);
  EXPECT_EQ(applied(Op::kEqualize, image, 15).pixels, effects::equalize(image).pixels);
  EXPECT_EQ(applied(Op::kInvert, image, 15).pixels, effects::invert(image).pixels);
  EXPECT_EQ(applied(Op::kPosterize, image, 15).pixels, effects::posterize(image, 6).pixels);
  EXPECT_EQ(applied(Op::kSolarize, image, 15).pixels, image.pixels);  // threshold 384
  EXPECT_EQ(applied(Op::kSolarizeAdd, image, 15).pixels, effects::solarize_add(image, 165).pixels);
  const double factor = 0.1 + 1.8 * 1.5;
  EXPECT_DOUBLE_EQ(factor, 2.8);
  EXPECT_EQ(applied(Op::kColor, image, 15).pixels, effects::color(image, factor).pixels);
  EXPECT_EQ(applied(Op::kContrast, image, 15).pixels, effects::contrast(image, factor).pixels);
  EXPECT_EQ(applied(Op::kBrightness, image, 15).pixels, effects::brightness(image, factor).pixels);
  EXPECT_EQ(applied(Op::kSharpness, image, 15).pixels, effects::sharpness(image, factor).pixels);
  using Set = std::set<Bytes>;
  EXPECT_EQ(outcomes(Op::kRotate, image, 15),
            (Set{effects::rotate(image, 45).pixels, effects::rotate(image, -45).pixels}));
  EXPECT_EQ(outcomes(Op::kShearX, image, 15),
            (Set{effects::shear_x(image, 0.3 * 1.5).pixels, effects::shear_x(image, -0.3 * 1.5).pixels}));
  EXPECT_EQ(outcomes(Op::kShearY, image, 15),
            (Set{effects::shear_y(image, 0.3 * 1.5).pixels, effects::shear_y(image, -0.3 * 1.5).pixels}));
  EXPECT_EQ(outcomes(Op::kTranslateX, image, 15),
            (Set{effects::translate_x(image, 150).pixels, effects::translate_x(image, -150).pixels}));
  EXPECT_EQ(outcomes(Op::kTranslateY, image, 15),
            (Set{effects::translate_y(image, 150).pixels, effects::translate_y(image, -150).pixels}));
}

TEST(RandAugment, SolarizesBelowTheFullRange) {
  EXPECT_EQ(applied(RandAugmentOp::kSolarize, picture(), 5).pixels, effects::solarize(picture(), 128).pixels);
}

TEST(RandAugment, CutsOutASquareOf120PixelsAtMagnitude15) {
  const Image white{224, 224, 1, Bytes(224 * 224, 255)};
  std::int64_t largest = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const Bytes out = applied(RandAugmentOp::kCutout, white, 15, seed).pixels;
    largest = std::max<std::int64_t>(largest, std::count(out.begin(), out.end(), effects::kFill));
  }
  EXPECT_EQ(largest, 120 * 120);
}

TEST(RandAugment, ScalesDistancesWithTheImage) {
  const Image image = picture(28);
  EXPECT_EQ(
      outcomes(RandAugmentOp::kTranslateX, image, 8),
      (std::set<Bytes>{effects::translate_x(image, 10).pixels, effects::translate_x(image, -10).pixels}));
}

TEST(RandAugment, DrawsEachOperationFromTheStream) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    RandomStream a(seed), b(seed);
    Image expected = picture();
    for (int i = 0; i < 2; ++i) {
      const auto op = static_cast<RandAugmentOp>(b.integer(0, kRandAugmentOps));
      expected = apply(op, expected, 9, b);
    }
    EXPECT_EQ(rand_augment(picture(), 2, 9, a).pixels, expected.pixels);
  }
}

TEST(RandAugment, ChoosesAll17Operations) {
  // the draw of one operation maps each seed to one of them
  std::vector<int> counts(kRandAugmentOps);
  for (std::uint64_t seed = 0; seed < 3400; ++seed)
    ++counts.at(RandomStream(mix_seed({seed})).integer(0, kRandAugmentOps));
  for (const int count : counts) EXPECT_NEAR(count, 200, 60);
  std::set<Bytes> found;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    RandomStream random(mix_seed({seed}));
    found.insert(rand_augment(picture(), 1, 6, random).pixels);
  }
  // identity, 9 others without sign, 5 with two, equalize being one of those that may keep a small image, and
  // cutouts
  EXPECT_GT(found.size(), 20u);
}

TEST(RandomBox, KeepsAreaAndAspect) {
  std::set<std::int64_t> tops;
  double smallest = 1, largest = 0;
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    RandomStream random(seed);
    const PixelBox box = random_box(200, 160, {0.08, 0.9}, {0.75, 4.0 / 3}, random);
    const double area = static_cast<double>(box.height * box.width) / (200 * 160);
    const double aspect = static_cast<double>(box.width) / static_cast<double>(box.height);
    EXPECT_GE(area, 0.08);
    EXPECT_LE(area, 0.9);
    EXPECT_NEAR(aspect, 1.04, 0.32);
    EXPECT_GE(box.top, 0);
    EXPECT_GE(box.left, 0);
    EXPECT_LE(box.top + box.height, 200);
    EXPECT_LE(box.left + box.width, 160);
    tops.insert(box.top);
    smallest = std::min(smallest, area);
    largest = std::max(largest, area);
  }
  EXPECT_GT(tops.size(), 80u);
  EXPECT_LT(smallest, 0.09);
  EXPECT_GT(largest, 0.7);
}

TEST(RandomBox, IsTheWholeImageWhereNothingFits) {
  RandomStream random(1);
  const PixelBox box = random_box(10, 1000, {0.9, 1}, {1, 1}, random);
  EXPECT_EQ(box.height, 10);
  EXPECT_EQ(box.width, 1000);
}

TEST(RandomBox, OfTheFullAreaAndTheImagesAspectIsTheImage) {
  RandomStream random(1);
  const PixelBox box = random_box(30, 60, {1, 1}, {2, 2}, random);
  EXPECT_EQ(box.height, 30);
  EXPECT_EQ(box.width, 60);
}

TEST(PaddedCrop, ShiftsWithinAZeroBorder) {
  const Image image{3, 3, 1, {1, 2, 3, 4, 5, 6, 7, 8, 9}};
  std::set<Bytes> found;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    RandomStream random(seed);
    found.insert(padded_crop(image, 1, random).pixels);
  }
  EXPECT_EQ(found.size(), 9u);
  EXPECT_TRUE(found.count(image.pixels));
  EXPECT_TRUE(found.count({0, 0, 0, 0, 1, 2, 0, 4, 5}));  // down and right
  EXPECT_TRUE(found.count({5, 6, 0, 8, 9, 0, 0, 0, 0}));  // up and left
}

TEST(PaddedCrop, MayLeaveTheImage) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    RandomStream random(seed);
    EXPECT_EQ(padded_crop(picture(4), 9, random).pixels.size(), 48u);
  }
}

TEST(Erase, ChangesOneBox) {
  const Image image{40, 40, 1, Bytes(1600, 77)};
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    RandomStream random(seed);
    const Image out = erase(image, random);
    std::int64_t top = 40, bottom = -1, left = 40, right = -1, changed = 0;
    for (std::int64_t y = 0; y < 40; ++y)
      for (std::int64_t x = 0; x < 40; ++x) {
        if (*out.at(y, x) == 77) continue;
        ++changed;
        top = std::min(top, y), bottom = std::max(bottom, y);
        left = std::min(left, x), right = std::max(right, x);
      }
    const auto box = (bottom - top + 1) * (right - left + 1);
    EXPECT_GE(box, 0.01 * 1600);
    EXPECT_LE(box, 0.33 * 1600);
    EXPECT_GT(static_cast<double>(changed), 0.9 * static_cast<double>(box));  // a random byte may be 77
  }
}

TEST(Augment, IsFixedByTheSeed) {
  AugmentOptions options;
  options.crop = TrainCrop::kDistorted;
  options.flip = true;
  options.randaugment_operations = 2;
  options.erasing = 0.5;
  std::set<Bytes> found;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    RandomStream a(seed), b(seed);
    const Bytes once = augment(picture(), options, a).pixels;
    EXPECT_EQ(once, augment(picture(), options, b).pixels);
    EXPECT_EQ(once.size(), picture().pixels.size());
    found.insert(once);
  }
  EXPECT_GT(found.size(), 15u);
}

TEST(Augment, DoesNothingByDefault) {
  RandomStream random(3);
  EXPECT_EQ(augment(picture(), {}, random).pixels, picture().pixels);
}

TEST(Augment, FlipsHalfOfTheImages) {
  AugmentOptions options;
  options.flip = true;
  const Bytes flipped = effects::flip(picture()).pixels;
  int count = 0;
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    RandomStream random(mix_seed({seed}));
    count += augment(picture(), options, random).pixels == flipped;
  }
  EXPECT_NEAR(count, 500, 60);
}

TEST(Augment, ErasesWithTheGivenProbability) {
  AugmentOptions options;
  options.erasing = 0.25;
  int count = 0;
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    RandomStream random(mix_seed({seed}));
    count += augment(picture(), options, random).pixels != picture().pixels;
  }
  EXPECT_NEAR(count, 250, 55);
}

TEST(Augment, DistortedCropKeepsAPlainImagePlain) {
  AugmentOptions options;
  options.crop = TrainCrop::kDistorted;
  const Image plain{20, 20, 3, Bytes(1200, 9)};
  RandomStream random(5);
  EXPECT_EQ(augment(plain, options, random).pixels, plain.pixels);
}

}  // namespace
}  // namespace stoa
