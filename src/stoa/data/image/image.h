#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace stoa {

/// An image of 8-bit samples, rows from the top, channels interleaved (1 gray or 3 RGB).
struct Image {
  std::int64_t height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels;  ///< height * width * channels

  std::uint8_t* at(std::int64_t row, std::int64_t column) {
    return pixels.data() + (row * width + column) * channels;
  }
  const std::uint8_t* at(std::int64_t row, std::int64_t column) const {
    return pixels.data() + (row * width + column) * channels;
  }
};

/// Decodes a JPEG (gray, YCbCr, CMYK, YCCK) or PNG (any type; 16-bit reduced to 8, alpha laid over white,
/// palettes resolved), told apart by the first bytes. `name` stands for the image in messages. Throws
/// DataError for anything truncated, damaged or of another kind.
Image decode_image(std::span<const std::uint8_t> bytes, const std::string& name);

/// PNG file content of an image (for reports).
std::vector<std::uint8_t> encode_png(const Image& image);

/// The image with 1 or 3 channels (luma of ITU-R BT.601, or the gray repeated).
Image with_channels(const Image& image, std::int64_t channels);

/// Bilinear resize with half-pixel centres, edges clamped, no anti-aliasing (TensorFlow 2's `resize`); the
/// box form takes a sub-rectangle of the source in pixels.
Image resize(const Image& image, std::int64_t height, std::int64_t width);
Image resize_box(const Image& image, double top, double left, double box_height, double box_width,
                 std::int64_t height, std::int64_t width);

/// The same with the source area averaged when shrinking (what PIL calls bilinear); for evaluation and
/// prediction.
Image resize_antialiased(const Image& image, std::int64_t height, std::int64_t width);

}  // namespace stoa
