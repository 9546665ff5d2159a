#include <algorithm>
#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/image/image.h"
#include "stoa/ops/resample_kernels.h"

namespace stoa {
namespace {

/// For each output sample along one axis: the input samples `first` ... `first + taps - 1` and their weights.
struct Axis {
  std::int64_t taps = 0;
  std::vector<std::int64_t> first;
  std::vector<float> weights;  // [outputs, taps]
};

/// Triangle filter over `length` input samples from `start`. When shrinking with `antialias` it widens with
/// the scale, so that it averages the source; otherwise it reaches one sample to either side, which is
/// bilinear interpolation. Weights are normalised over the samples inside the box, which amounts to clamping
/// at its edges.
Axis make_axis(std::int64_t inputs, double start, double length, std::int64_t outputs, bool antialias) {
  const double scale = length / static_cast<double>(outputs);
  const double reach = antialias ? std::max(scale, 1.0) : 1.0;
  const auto low =
      static_cast<std::int64_t>(std::clamp(std::floor(start), 0.0, static_cast<double>(inputs - 1)));
  const auto high = std::clamp(static_cast<std::int64_t>(std::ceil(start + length)), low + 1, inputs);
  Axis axis;
  axis.taps = std::min(static_cast<std::int64_t>(std::ceil(2 * reach)), high - low);
  axis.first.resize(outputs);
  axis.weights.resize(outputs * axis.taps);
  for (std::int64_t i = 0; i < outputs; ++i) {
    const double center = start + (static_cast<double>(i) + 0.5) * scale;
    const auto leftmost = static_cast<std::int64_t>(std::floor(center - reach + 0.5));
    const std::int64_t first = std::clamp(leftmost, low, high - axis.taps);
    float* weights = axis.weights.data() + i * axis.taps;
    double sum = 0;
    for (std::int64_t t = 0; t < axis.taps; ++t) {
      const double distance = std::abs(static_cast<double>(first + t) + 0.5 - center) / reach;
      weights[t] = static_cast<float>(std::max(0.0, 1 - distance));
      sum += weights[t];
    }
    for (std::int64_t t = 0; t < axis.taps; ++t) weights[t] /= static_cast<float>(sum);
    axis.first[i] = first;
  }
  return axis;
}

Image resample(const Image& image, const Axis& rows, Axis columns) {
  const auto height = static_cast<std::int64_t>(rows.first.size());
  const auto width = static_cast<std::int64_t>(columns.first.size());
  const std::int64_t c = image.channels, left = columns.first.front(),
                     right = columns.first.back() + columns.taps;
  for (auto& first : columns.first) first -= left;
  Image result{height, width, c, std::vector<std::uint8_t>(height * width * c)};
  std::vector<float> line((right - left) * c +
                          4);  // a row of the result as wide as the source; see blend_columns()
  for (std::int64_t y = 0; y < height; ++y) {
    ops::blend_rows(image.at(rows.first[y], left), image.width * c, rows.weights.data() + y * rows.taps,
                    rows.taps, (right - left) * c, line.data());
    ops::blend_columns(line.data(), columns.first.data(), columns.weights.data(), columns.taps, width, c,
                       result.at(y, 0));
  }
  return result;
}

Image resize_any(const Image& image, double top, double left, double box_height, double box_width,
                 std::int64_t height, std::int64_t width, bool antialias) {
  if (height < 1 || width < 1 || image.height < 1 || image.width < 1 || !(box_height > 0) ||
      !(box_width > 0) || top < 0 || left < 0 ||
      top + box_height > static_cast<double>(image.height) + 1e-6 ||
      left + box_width > static_cast<double>(image.width) + 1e-6)
    throw Error(format(
        "cannot resize the box {} x {} at ({}, {}) of an image of {} x {} pixels to {} x {}: it must lie "
        "within the image and be larger than nothing",
        box_height, box_width, top, left, image.height, image.width, height, width));
  return resample(image, make_axis(image.height, top, box_height, height, antialias),
                  make_axis(image.width, left, box_width, width, antialias));
}

}  // namespace

Image with_channels(const Image& image, std::int64_t channels) {
  if (image.channels == channels) return image;
  Image result{image.height, image.width, channels, {}};
  result.pixels.resize(image.height * image.width * channels);
  const std::uint8_t* from = image.pixels.data();
  std::uint8_t* to = result.pixels.data();
  for (std::int64_t i = 0; i < image.height * image.width; ++i)
    if (channels == 3) {
      to[3 * i] = to[3 * i + 1] = to[3 * i + 2] = from[i];
    } else {  // 0.299 R + 0.587 G + 0.114 B in 16-bit fixed point
      to[i] = static_cast<std::uint8_t>(
          (19595 * from[3 * i] + 38470 * from[3 * i + 1] + 7471 * from[3 * i + 2] + 32768) >> 16);
    }
  return result;
}

Image resize(const Image& image, std::int64_t height, std::int64_t width) {
  return resize_box(image, 0, 0, static_cast<double>(image.height), static_cast<double>(image.width), height,
                    width);
}

Image resize_box(const Image& image, double top, double left, double box_height, double box_width,
                 std::int64_t height, std::int64_t width) {
  return resize_any(image, top, left, box_height, box_width, height, width, false);
}

Image resize_antialiased(const Image& image, std::int64_t height, std::int64_t width) {
  return resize_any(image, 0, 0, static_cast<double>(image.height), static_cast<double>(image.width), height,
                    width, true);
}

}  // namespace stoa
