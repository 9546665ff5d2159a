#include <gtest/gtest.h>

#include <algorithm>

#include "stoa/base/errors.h"
#include "stoa/data/image/image.h"
#include "support/image_files.h"
#include "support/test_data.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using test::Bytes;

Image decode(const Bytes& bytes) {
  return decode_image(bytes, "picture");
}

/// `height` x `width` pixels of one colour.
Bytes plain(int height, int width, const Bytes& color) {
  Bytes pixels;
  for (int i = 0; i < height * width; ++i) test::append(pixels, color);
  return pixels;
}

void expect_plain(const Image& image, const Bytes& color, int tolerance) {
  ASSERT_EQ(image.channels, static_cast<std::int64_t>(color.size()));
  for (std::size_t i = 0; i < image.pixels.size(); ++i)
    ASSERT_NEAR(image.pixels[i], color[i % color.size()], tolerance) << "sample " << i;
}

std::string refusal(const Bytes& bytes) {
  const auto message = test::thrown<DataError>([&] { decode(bytes); });
  STOA_EXPECT_CONTAINS(message, "picture");
  return message;
}

TEST(DecodeJpeg, ReadsRgb) {
  const Image image = decode(test::jpeg(9, 17, plain(9, 17, {200, 100, 50})));
  EXPECT_EQ(image.height, 9);
  EXPECT_EQ(image.width, 17);
  expect_plain(image, {200, 100, 50}, 1);
}

TEST(DecodeJpeg, ReadsGrayAsOneChannel) {
  expect_plain(decode(test::jpeg(8, 8, plain(8, 8, {77}), {JCS_GRAYSCALE, JCS_GRAYSCALE})), {77}, 1);
}

TEST(DecodeJpeg, ReadsProgressive) {
  expect_plain(decode(test::jpeg(20, 20, plain(20, 20, {9, 99, 199}), {.progressive = true})), {9, 99, 199},
               1);
}

TEST(DecodeJpeg, KeepsRowsAndColumnsApart) {
  Bytes pixels = plain(16, 16, {0, 0, 0});
  for (int y = 0; y < 8; ++y)
    for (int x = 8; x < 16; ++x) pixels[(y * 16 + x) * 3] = 255;  // red in the top right quarter
  const Image image = decode(test::jpeg(16, 16, pixels));
  EXPECT_GT(image.at(3, 12)[0], 240);
  EXPECT_LT(image.at(3, 12)[1], 15);
  EXPECT_LT(image.at(12, 12)[0], 15);
  EXPECT_LT(image.at(3, 3)[0], 15);
}

TEST(DecodeJpeg, ReadsCmykInkAsLight) {  // without Adobe's marker 255 is full ink
  const Bytes ink = plain(8, 8, {0, 128, 255, 51});
  expect_plain(decode(test::jpeg(8, 8, ink, {JCS_CMYK, JCS_CMYK})), {204, 102, 0}, 1);
}

TEST(DecodeJpeg, ReadsAdobesInvertedCmyk) {
  const Bytes light = plain(8, 8, {255, 127, 0, 204});
  expect_plain(decode(test::jpeg(8, 8, light, {JCS_CMYK, JCS_CMYK, true})), {204, 102, 0}, 1);
}

TEST(DecodeJpeg, ReadsAdobesYcck) {
  const Bytes light = plain(8, 8, {255, 127, 0, 204});
  expect_plain(decode(test::jpeg(8, 8, light, {JCS_CMYK, JCS_YCCK, true})), {204, 102, 0}, 2);
}

TEST(DecodeJpeg, RefusesATruncatedFileWhereverItIsCut) {
  for (const bool progressive : {false, true}) {
    Bytes noise(32 * 32 * 3);
    for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<std::uint8_t>(i * i * 31 % 251);
    const Bytes whole = test::jpeg(32, 32, noise, {.progressive = progressive});
    for (std::size_t size = 2; size < whole.size(); size += 97) {
      const auto message = refusal(test::cut(whole, size));
      STOA_EXPECT_CONTAINS(message, "truncated or damaged JPEG");
      STOA_EXPECT_CONTAINS(message, "replace the file or remove it");
    }
  }
}

TEST(DecodeJpeg, RefusesAltered) {
  Bytes noise(32 * 32 * 3);
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<std::uint8_t>(i * i * 31 % 251);
  Bytes bytes = test::jpeg(32, 32, noise);
  bytes[bytes.size() / 2] = 0xff;  // starts a marker within the picture
  bytes[bytes.size() / 2 + 1] = 0xd9;
  STOA_EXPECT_CONTAINS(refusal(bytes), "damaged JPEG");
}

TEST(DecodeJpeg, RefusesAHeaderThatClaimsMoreThanTheFileCanHold) {
  Bytes bytes = test::jpeg(8, 8, plain(8, 8, {1, 2, 3}));
  for (std::size_t i = 0; i + 9 < bytes.size(); ++i)
    if (bytes[i] == 0xff && bytes[i + 1] == 0xc0) {  // frame header: sizes at 5 and 7
      bytes[i + 5] = bytes[i + 7] = 0x20;
      break;
    }
  STOA_EXPECT_CONTAINS(refusal(bytes), "cannot hold the 8200 x 8200 pixels");
}

TEST(DecodeJpeg, ReadsTheFramesOfDavis) {
  STOA_NEEDS_TEST_DATA("davis");
  const Bytes bytes = test::load(test::test_data("davis/JPEGImages/480p/libby/00000.jpg"));
  const Image image = decode(bytes);
  EXPECT_EQ(image.height, 480);
  EXPECT_EQ(image.width, 854);
  EXPECT_EQ(image.channels, 3);
  STOA_EXPECT_CONTAINS(refusal(test::cut(bytes, bytes.size() / 2)), "truncated or damaged JPEG");
}

TEST(DecodePng, ReadsTheMasksOfDavis) {
  STOA_NEEDS_TEST_DATA("davis");
  const Image mask = decode(test::load(test::test_data("davis/Annotations/480p/libby/00000.png")));
  EXPECT_EQ(mask.height, 480);
  EXPECT_EQ(mask.channels, 1);
  EXPECT_TRUE(std::all_of(mask.pixels.begin(), mask.pixels.end(), [](auto v) { return v == 0 || v == 255; }));
}

TEST(DecodePng, ReadsRgbExactly) {
  EXPECT_EQ(decode(test::png(1, 2, {1, 2, 3, 250, 251, 252})).pixels, (Bytes{1, 2, 3, 250, 251, 252}));
}

TEST(DecodePng, ReadsInterlaced) {
  Bytes pixels(9 * 11 * 3);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i);
  EXPECT_EQ(decode(test::png(9, 11, pixels, {.interlaced = true})).pixels, pixels);
}

TEST(DecodePng, WidensSmallGray) {
  const Image bits = decode(test::png(1, 4, {0b10100000}, {PNG_COLOR_TYPE_GRAY, 1}));
  EXPECT_EQ(bits.pixels, (Bytes{255, 0, 255, 0}));
  const Image pairs = decode(test::png(1, 4, {0b00011011}, {PNG_COLOR_TYPE_GRAY, 2}));
  EXPECT_EQ(pairs.pixels, (Bytes{0, 85, 170, 255}));
}

TEST(DecodePng, Reduces16Bits) {
  const Image image =
      decode(test::png(1, 3, {0xff, 0xff, 0x80, 0x80, 0x01, 0x80}, {PNG_COLOR_TYPE_GRAY, 16}));
  EXPECT_EQ(image.pixels, (Bytes{255, 128, 1}));  // 0x0180 / 257 = 1.49
}

TEST(DecodePng, ResolvesPalettes) {
  const test::PngForm form{PNG_COLOR_TYPE_PALETTE, 8, false, {{10, 20, 30}, {200, 210, 220}}, {}};
  EXPECT_EQ(decode(test::png(1, 2, {1, 0}, form)).pixels, (Bytes{200, 210, 220, 10, 20, 30}));
}

TEST(DecodePng, LaysTransparentPaletteColorsOverWhite) {
  const test::PngForm form{PNG_COLOR_TYPE_PALETTE, 8, false, {{10, 20, 30}, {200, 210, 220}}, {0}};
  EXPECT_EQ(decode(test::png(1, 2, {1, 0}, form)).pixels, (Bytes{200, 210, 220, 255, 255, 255}));
}

TEST(DecodePng, LaysAlphaOverWhite) {
  const Image color =
      decode(test::png(1, 3, {9, 9, 9, 255, 9, 9, 9, 0, 0, 100, 200, 51}, {PNG_COLOR_TYPE_RGB_ALPHA}));
  EXPECT_EQ(color.pixels, (Bytes{9, 9, 9, 255, 255, 255, 204, 224, 244}));
  const Image gray = decode(test::png(1, 2, {0, 51, 100, 255}, {PNG_COLOR_TYPE_GRAY_ALPHA}));
  EXPECT_EQ(gray.channels, 1);
  EXPECT_EQ(gray.pixels, (Bytes{204, 100}));
}

TEST(DecodePng, Lays16BitAlphaOverWhite) {
  const Bytes half = {0, 0, 0x33, 0x33};
  EXPECT_EQ(decode(test::png(1, 1, half, {PNG_COLOR_TYPE_GRAY_ALPHA, 16})).pixels, (Bytes{204}));
}

TEST(DecodePng, RefusesATruncatedFileWhereverItIsCut) {
  const Bytes whole = test::plain_png(12, 50);
  for (std::size_t size = 4; size < whole.size(); ++size) {
    const auto message = refusal(test::cut(whole, size));
    STOA_EXPECT_CONTAINS(message, "truncated or damaged PNG");
    STOA_EXPECT_CONTAINS(message, "replace the file or remove it");
  }
}

TEST(DecodePng, RefusesAltered) {
  Bytes bytes = test::plain_png(12, 50);
  bytes[45] ^= 1;
  STOA_EXPECT_CONTAINS(refusal(bytes), "damaged PNG");
}

TEST(DecodeImage, RefusesOtherFiles) {
  STOA_EXPECT_CONTAINS(refusal(test::text("GIF89a")),
                       "neither JPEG nor PNG (6 bytes, starting with 47 49 46 38)");
  STOA_EXPECT_CONTAINS(refusal({}), "neither JPEG nor PNG (0 bytes)");
}

TEST(EncodePng, IsReadBackExactly) {
  for (const std::int64_t channels : {1, 3}) {
    Image image{5, 7, channels, Bytes(5 * 7 * channels)};
    for (std::size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<std::uint8_t>(3 * i);
    const Image back = decode(encode_png(image));
    EXPECT_EQ(back.channels, channels);
    EXPECT_EQ(back.pixels, image.pixels);
  }
}

}  // namespace
}  // namespace stoa
