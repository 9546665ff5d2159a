#include <gtest/gtest.h>

#include <algorithm>

#include "stoa/base/errors.h"
#include "stoa/data/image/image.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using Bytes = std::vector<std::uint8_t>;

TEST(WithChannels, RepeatsGray) {
  EXPECT_EQ(with_channels({1, 2, 1, {5, 9}}, 3).pixels, (Bytes{5, 5, 5, 9, 9, 9}));
}

TEST(WithChannels, WeighsColorsByBt601) {
  EXPECT_EQ(with_channels({1, 4, 3, {255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255}}, 1).pixels,
            (Bytes{76, 150, 29, 255}));
}

TEST(WithChannels, KeepsWhatFits) {
  EXPECT_EQ(with_channels({1, 1, 3, {1, 2, 3}}, 3).pixels, (Bytes{1, 2, 3}));
}

TEST(Resize, KeepsAnImageOfThatSize) {
  const Image image{2, 3, 1, {1, 2, 3, 4, 5, 6}};
  EXPECT_EQ(resize(image, 2, 3).pixels, image.pixels);
  EXPECT_EQ(resize_antialiased(image, 2, 3).pixels, image.pixels);
}

TEST(Resize, InterpolatesBetweenHalfPixelCentres) {
  // centres of 4 outputs over 2 inputs: -0.25 (clamped), 0.25, 0.75, 1.25 (clamped)
  EXPECT_EQ(resize({1, 2, 1, {0, 100}}, 1, 4).pixels, (Bytes{0, 25, 75, 100}));
  EXPECT_EQ(resize({2, 1, 1, {0, 100}}, 4, 1).pixels, (Bytes{0, 25, 75, 100}));
}

TEST(Resize, WithoutAntialiasingReadsTwoNeighboursOnly) {
  // 4 to 1: the centre lies at 1.5, between the middle samples
  EXPECT_EQ(resize({1, 4, 1, {255, 10, 20, 255}}, 1, 1).pixels, (Bytes{15}));
  // 6 to 2: centres at 1 and 4
  EXPECT_EQ(resize({1, 6, 1, {0, 50, 0, 0, 90, 0}}, 1, 2).pixels, (Bytes{50, 90}));
}

TEST(ResizeAntialiased, AveragesWithATriangle) {
  // 4 to 2 reaches 2 samples; the first output's centre 1 is 0.5, 0.5 and 1.5 away from samples 0, 1 and 2,
  // which weigh 0.75, 0.75 and 0.25: 70 * 0.25 / 1.75 = 10
  EXPECT_EQ(resize_antialiased({1, 4, 1, {0, 0, 70, 70}}, 1, 2).pixels, (Bytes{10, 60}));
}

TEST(ResizeAntialiased, KeepsTheMeanOfNoise) {
  Image noise{64, 64, 3, Bytes(64 * 64 * 3)};
  for (std::size_t i = 0; i < noise.pixels.size(); ++i)
    noise.pixels[i] = i / 3 % 2 ? 255 : 0;  // columns in turn
  for (const auto value : resize_antialiased(noise, 8, 8).pixels) EXPECT_NEAR(value, 127.5, 8);
}

TEST(Resize, KeepsAPlainImagePlain) {
  const Image plain{13, 7, 3, Bytes(13 * 7 * 3, 201)};
  for (const auto& size : std::vector<std::pair<int, int>>{{5, 9}, {40, 3}, {1, 1}}) {
    for (const auto value : resize(plain, size.first, size.second).pixels) EXPECT_EQ(value, 201);
    for (const auto value : resize_antialiased(plain, size.first, size.second).pixels) EXPECT_EQ(value, 201);
  }
}

TEST(Resize, KeepsChannelsApart) {
  EXPECT_EQ(resize({1, 2, 3, {0, 10, 20, 100, 110, 120}}, 1, 1).pixels, (Bytes{50, 60, 70}));
}

TEST(ResizeBox, ReadsOnlyTheBox) {
  Image image{4, 4, 1, Bytes(16, 255)};
  *image.at(1, 1) = *image.at(1, 2) = *image.at(2, 1) = *image.at(2, 2) = 40;
  EXPECT_EQ(resize_box(image, 1, 1, 2, 2, 5, 5).pixels, Bytes(25, 40));
}

TEST(ResizeBox, TakesFractionsOfPixels) {
  // the box [0.5, 1.5) has its centre between both samples
  EXPECT_EQ(resize_box({1, 2, 1, {0, 100}}, 0, 0.5, 1, 1, 1, 1).pixels, (Bytes{50}));
}

TEST(ResizeBox, RefusesABoxOutside) {
  const Image image{4, 4, 1, Bytes(16)};
  STOA_EXPECT_CONTAINS(test::thrown<Error>([&] { resize_box(image, 2, 0, 3, 2, 2, 2); }),
                       "box 3 x 2 at (2, 0)");
  test::thrown<Error>([&] { resize_box(image, 0, 0, 0, 2, 2, 2); });
}

}  // namespace
}  // namespace stoa
