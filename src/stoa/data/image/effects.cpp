#include "stoa/data/image/effects.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace stoa::effects {
namespace {

using Table = std::array<std::uint8_t, 256>;

std::uint8_t to_byte(double value) {
  return static_cast<std::uint8_t>(std::clamp(value, 0.0, 255.0));
}

template <class Change>
Table make_table(const Change& change) {
  Table table;
  for (int v = 0; v < 256; ++v) table[v] = to_byte(change(v));
  return table;
}

Image look_up(Image image, const Table& table) {
  for (auto& pixel : image.pixels) pixel = table[pixel];
  return image;
}

/// Looks every channel up in a table made from its own histogram.
template <class Make>
Image look_up_channels(Image image, const Make& make) {
  const std::int64_t c = image.channels;
  for (std::int64_t k = 0; k < c; ++k) {
    std::array<std::int64_t, 256> histogram{};
    for (std::size_t i = k; i < image.pixels.size(); i += c) ++histogram[image.pixels[i]];
    const Table table = make(histogram);
    for (std::size_t i = k; i < image.pixels.size(); i += c) image.pixels[i] = table[image.pixels[i]];
  }
  return image;
}

double blend(double degenerate, double original, double factor) {
  return degenerate + factor * (original - degenerate);
}

/// Output (x, y) shows the input sample nearest to (x * xx + y * xy + x0, x * yx + y * yy + y0).
struct Affine {
  double xx = 1, xy = 0, x0 = 0, yx = 0, yy = 1, y0 = 0;
};

Image transform(const Image& image, const Affine& a) {
  Image result{image.height, image.width, image.channels, {}};
  result.pixels.assign(image.pixels.size(), kFill);
  for (std::int64_t y = 0; y < image.height; ++y)
    for (std::int64_t x = 0; x < image.width; ++x) {
      const auto dx = static_cast<double>(x), dy = static_cast<double>(y);
      const auto from_x = static_cast<std::int64_t>(std::floor(a.xx * dx + a.xy * dy + a.x0 + 0.5));
      const auto from_y = static_cast<std::int64_t>(std::floor(a.yx * dx + a.yy * dy + a.y0 + 0.5));
      if (from_x >= 0 && from_x < image.width && from_y >= 0 && from_y < image.height)
        std::copy_n(image.at(from_y, from_x), image.channels, result.at(y, x));
    }
  return result;
}

}  // namespace

Image invert(Image image) {
  return look_up(std::move(image), make_table([](int v) { return 255 - v; }));
}

Image autocontrast(Image image) {
  return look_up_channels(std::move(image), [](const std::array<std::int64_t, 256>& histogram) {
    int low = 0, high = 255;
    while (low < 255 && histogram[low] == 0) ++low;
    while (high > 0 && histogram[high] == 0) --high;
    if (high <= low) return make_table([](int v) { return v; });
    // a product before the quotient: the ends come out as exactly 0 and 255
    return make_table([=](int v) { return 255.0 * (v - low) / (high - low); });
  });
}

Image equalize(Image image) {
  return look_up_channels(std::move(image), [](const std::array<std::int64_t, 256>& histogram) {
    std::int64_t total = 0, brightest = 0;
    for (const std::int64_t count : histogram) {
      total += count;
      if (count != 0) brightest = count;
    }
    const std::int64_t step = (total - brightest) / 255;
    if (step == 0) return make_table([](int v) { return v; });
    std::int64_t darker = 0;
    return make_table([&](int v) {
      const std::int64_t value = (darker + step / 2) / step;
      darker += histogram[v];
      return static_cast<double>(value);
    });
  });
}

Image posterize(Image image, int bits) {
  const int shift = 8 - std::clamp(bits, 0, 8);
  return look_up(std::move(image), make_table([=](int v) { return v >> shift << shift; }));
}

Image solarize(Image image, int threshold) {
  return look_up(std::move(image), make_table([=](int v) { return v < threshold ? v : 255 - v; }));
}

Image solarize_add(Image image, int addition, int threshold) {
  return look_up(std::move(image), make_table([=](int v) { return v < threshold ? v + addition : v; }));
}

Image color(Image image, double factor) {
  if (image.channels == 1) return image;
  const Image gray = with_channels(image, 1);
  for (std::size_t i = 0; i < image.pixels.size(); ++i)
    image.pixels[i] = to_byte(blend(gray.pixels[i / 3], image.pixels[i], factor));
  return image;
}

Image contrast(Image image, double factor) {
  const Image gray = with_channels(image, 1);
  double sum = 0;
  for (const std::uint8_t pixel : gray.pixels) sum += pixel;
  const double mean = std::floor(sum / static_cast<double>(gray.pixels.size()) + 0.5);
  return look_up(std::move(image), make_table([=](int v) { return blend(mean, v, factor); }));
}

Image brightness(Image image, double factor) {
  return look_up(std::move(image), make_table([=](int v) { return factor * v; }));
}

Image sharpness(Image image, double factor) {
  const Image source = image;
  const std::int64_t c = image.channels;
  for (std::int64_t y = 1; y + 1 < image.height; ++y)
    for (std::int64_t x = 1; x + 1 < image.width; ++x)
      for (std::int64_t k = 0; k < c; ++k) {
        int sum = 4 * source.at(y, x)[k];  // the centre counts 5 of 13
        for (std::int64_t row = y - 1; row <= y + 1; ++row)
          for (std::int64_t column = x - 1; column <= x + 1; ++column) sum += source.at(row, column)[k];
        image.at(y, x)[k] = to_byte(blend(sum / 13, source.at(y, x)[k], factor));
      }
  return image;
}

Image rotate(const Image& image, double degrees) {
  const double angle = degrees * std::numbers::pi / 180, c = std::cos(angle), s = std::sin(angle);
  const double x = static_cast<double>(image.width - 1) / 2, y = static_cast<double>(image.height - 1) / 2;
  return transform(image, {c, -s, x - c * x + s * y, s, c, y - s * x - c * y});
}

Image shear_x(const Image& image, double amount) {
  return transform(image, {1, amount, 0, 0, 1, 0});
}
Image shear_y(const Image& image, double amount) {
  return transform(image, {1, 0, 0, amount, 1, 0});
}

Image translate_x(const Image& image, std::int64_t pixels) {
  return transform(image, {1, 0, -static_cast<double>(pixels), 0, 1, 0});
}

Image translate_y(const Image& image, std::int64_t pixels) {
  return transform(image, {1, 0, 0, 0, 1, -static_cast<double>(pixels)});
}

Image cutout(Image image, std::int64_t row, std::int64_t column, std::int64_t reach) {
  const std::int64_t left = std::max<std::int64_t>(0, column - reach),
                     right = std::min(image.width, column + reach);
  for (std::int64_t y = std::max<std::int64_t>(0, row - reach); y < std::min(image.height, row + reach); ++y)
    if (left < right) std::fill_n(image.at(y, left), (right - left) * image.channels, kFill);
  return image;
}

Image flip(Image image) {
  for (std::int64_t y = 0; y < image.height; ++y)
    for (std::int64_t left = 0, right = image.width - 1; left < right; ++left, --right)
      std::swap_ranges(image.at(y, left), image.at(y, left) + image.channels, image.at(y, right));
  return image;
}

}  // namespace stoa::effects
