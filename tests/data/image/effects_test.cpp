#include "stoa/data/image/effects.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace stoa::effects {
namespace {

using Bytes = std::vector<std::uint8_t>;

Image row(Bytes values) {
  return {1, static_cast<std::int64_t>(values.size()), 1, std::move(values)};
}
Image square(Bytes values) {
  return {3, 3, 1, std::move(values)};
}

TEST(Effects, Invert) {
  EXPECT_EQ(invert(row({0, 100, 255})).pixels, (Bytes{255, 155, 0}));
}

TEST(Effects, AutocontrastStretchesEachChannel) {
  EXPECT_EQ(autocontrast(row({50, 100, 150})).pixels, (Bytes{0, 127, 255}));
  EXPECT_EQ(autocontrast({1, 2, 3, {10, 0, 7, 20, 255, 7}}).pixels, (Bytes{0, 0, 7, 255, 255, 7}));
}

TEST(Effects, AutocontrastReachesBothEndsForEveryRange) {
  for (int high = 1; high < 256; ++high)
    EXPECT_EQ(autocontrast(row({0, static_cast<std::uint8_t>(high)})).pixels, (Bytes{0, 255}));
}

TEST(Effects, EqualizeFlattensTheHistogram) {
  // 512 samples, 2 of them the brightest: step (512 - 2) / 255 = 2, tables (0 + 1) / 2, (255 + 1) / 2, (510 +
  // 1) / 2
  Bytes values(512, 10);
  std::fill_n(values.begin() + 255, 255, 20);
  values[510] = values[511] = 30;
  const Bytes out = equalize(row(values)).pixels;
  EXPECT_EQ(out[0], 0);
  EXPECT_EQ(out[300], 128);
  EXPECT_EQ(out[511], 255);
}

TEST(Effects, EqualizeKeepsWhatHasTooFewSamples) {
  EXPECT_EQ(equalize(row({3, 90, 7})).pixels, (Bytes{3, 90, 7}));
}

TEST(Effects, PosterizeKeepsTheHighestBits) {
  EXPECT_EQ(posterize(row({0, 63, 64, 255}), 2).pixels, (Bytes{0, 0, 64, 192}));
  EXPECT_EQ(posterize(row({7, 255}), 6).pixels, (Bytes{4, 252}));
  EXPECT_EQ(posterize(row({7, 255}), 8).pixels, (Bytes{7, 255}));
  EXPECT_EQ(posterize(row({7, 255}), 0).pixels, (Bytes{0, 0}));
  EXPECT_EQ(posterize(row({7, 255}), 12).pixels, (Bytes{7, 255}));
}

TEST(Effects, SolarizeInvertsFromTheThreshold) {
  EXPECT_EQ(solarize(row({0, 127, 128, 255}), 128).pixels, (Bytes{0, 127, 127, 0}));
  EXPECT_EQ(solarize(row({0, 255}), 384).pixels, (Bytes{0, 255}));
}

TEST(Effects, SolarizeAddAddsBelowTheThreshold) {
  EXPECT_EQ(solarize_add(row({0, 50, 127, 128, 200}), 165).pixels, (Bytes{165, 215, 255, 128, 200}));
}

TEST(Effects, ColorMovesFromGray) {  // the gray of 100, 150, 200 is 141
  const Image image{1, 1, 3, {100, 150, 200}};
  EXPECT_EQ(color(image, 0).pixels, (Bytes{141, 141, 141}));
  EXPECT_EQ(color(image, 1).pixels, image.pixels);
  EXPECT_EQ(color(image, 2).pixels, (Bytes{59, 159, 255}));
  EXPECT_EQ(color(row({5}), 0).pixels, (Bytes{5}));
}

TEST(Effects, ContrastMovesFromTheMeanGray) {
  EXPECT_EQ(contrast(row({100, 200}), 0).pixels, (Bytes{150, 150}));
  EXPECT_EQ(contrast(row({100, 200}), 1.5).pixels, (Bytes{75, 225}));
  EXPECT_EQ(contrast(row({100, 200}), 4).pixels, (Bytes{0, 255}));
}

TEST(Effects, BrightnessScales) {
  EXPECT_EQ(brightness(row({0, 51, 200}), 0.5).pixels, (Bytes{0, 25, 100}));
  EXPECT_EQ(brightness(row({0, 51, 200}), 2).pixels, (Bytes{0, 102, 255}));
}

TEST(Effects, SharpnessMovesFromTheSmoothedImageWithinTheBorder) {
  // smoothed centre: 5 * 130 / 13 = 50
  const Image image = square({0, 0, 0, 0, 130, 0, 0, 0, 0});
  EXPECT_EQ(sharpness(image, 0).pixels, (Bytes{0, 0, 0, 0, 50, 0, 0, 0, 0}));
  EXPECT_EQ(sharpness(image, 2).pixels, (Bytes{0, 0, 0, 0, 210, 0, 0, 0, 0}));
  // neighbours count 1 of 13 each: 8 * 13 / 13
  EXPECT_EQ(sharpness(square({13, 13, 13, 13, 0, 13, 13, 13, 13}), 0).pixels[4], 8);
}

TEST(Effects, RotateTurnsCounterClockwise) {
  const Image image = square({1, 2, 3, 4, 5, 6, 7, 8, 9});
  EXPECT_EQ(rotate(image, 90).pixels, (Bytes{3, 6, 9, 2, 5, 8, 1, 4, 7}));
  EXPECT_EQ(rotate(image, -90).pixels, (Bytes{7, 4, 1, 8, 5, 2, 9, 6, 3}));
  EXPECT_EQ(rotate(image, 0).pixels, image.pixels);
}

TEST(Effects, RotateFillsTheCorners) {
  // at 45 degrees the corners of 3 x 3 come from 1.41 samples off the centre, which rounds to the middle of
  // the edges
  const Image image{5, 5, 1, Bytes(25, 10)};
  const Bytes out = rotate(image, 45).pixels;
  EXPECT_EQ(out[0], kFill);
  EXPECT_EQ(out[24], kFill);
  EXPECT_EQ(out[12], 10);
}

TEST(Effects, ShearMovesRowsAndColumnsByTheirPlace) {
  const Image image = square({1, 2, 3, 4, 5, 6, 7, 8, 9});
  EXPECT_EQ(shear_x(image, 1).pixels, (Bytes{1, 2, 3, 5, 6, kFill, 9, kFill, kFill}));
  EXPECT_EQ(shear_x(image, -1).pixels, (Bytes{1, 2, 3, kFill, 4, 5, kFill, kFill, 7}));
  EXPECT_EQ(shear_y(image, 1).pixels, (Bytes{1, 5, 9, 4, 8, kFill, 7, kFill, kFill}));
}

TEST(Effects, TranslateMovesTheContent) {
  const Image image = square({1, 2, 3, 4, 5, 6, 7, 8, 9});
  EXPECT_EQ(translate_x(image, 1).pixels, (Bytes{kFill, 1, 2, kFill, 4, 5, kFill, 7, 8}));
  EXPECT_EQ(translate_y(image, -2).pixels, (Bytes{7, 8, 9, kFill, kFill, kFill, kFill, kFill, kFill}));
  EXPECT_EQ(translate_x(image, 5).pixels, Bytes(9, kFill));
}

TEST(Effects, CutoutFillsASquareAsFarAsItIsWithin) {
  const Image image{4, 4, 1, Bytes(16, 1)};
  const Image corner = cutout(image, 0, 3, 1);  // rows -1..0, columns 2..3
  EXPECT_EQ(corner.pixels, (Bytes{1, 1, kFill, kFill, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}));
  EXPECT_EQ(cutout(image, 2, 2, 2).pixels, Bytes(16, kFill));
  EXPECT_EQ(cutout(image, 2, 2, 0).pixels, image.pixels);
}

TEST(Effects, FlipMirrorsWholePixels) {
  EXPECT_EQ(flip({1, 2, 3, {1, 2, 3, 4, 5, 6}}).pixels, (Bytes{4, 5, 6, 1, 2, 3}));
  EXPECT_EQ(flip({2, 3, 1, {1, 2, 3, 4, 5, 6}}).pixels, (Bytes{3, 2, 1, 6, 5, 4}));
}

}  // namespace
}  // namespace stoa::effects
