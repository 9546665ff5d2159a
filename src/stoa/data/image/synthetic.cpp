#include <algorithm>
#include <cmath>
#include <numbers>

#include "stoa/base/format.h"
#include "stoa/base/random.h"
#include "stoa/data/image/readers.h"

namespace stoa {
namespace {

enum Purpose : std::uint64_t { kPattern = 201, kNoise = 202 };

/// Each class is a sum of a few slow plane waves per channel; each image adds noise of its own.
class SyntheticImages final : public ImageDataset {
 public:
  SyntheticImages(const ImageDataOptions& options, Split split, std::int64_t size)
      : side_(options.image_size),
        channels_(options.channels),
        classes_(options.classes),
        size_(size),
        split_(split) {}

  std::int64_t size() const override { return size_; }

  LabeledImage get(std::int64_t index) const override {
    const std::int64_t label = index % classes_;
    Image image{side_, side_, channels_, std::vector<std::uint8_t>(side_ * side_ * channels_)};
    std::vector<double> level(side_ * side_);
    RandomStream pattern(mix_seed({0, kPattern, static_cast<std::uint64_t>(label)}));
    RandomStream noise(
        mix_seed({0, kNoise, static_cast<std::uint64_t>(split_), static_cast<std::uint64_t>(index)}));
    for (std::int64_t c = 0; c < channels_; ++c) {
      std::fill(level.begin(), level.end(), 128.0);
      for (int wave = 0; wave < 3; ++wave) add_wave(level, pattern);
      for (std::int64_t i = 0; i < side_ * side_; ++i)
        image.pixels[i * channels_ + c] =
            static_cast<std::uint8_t>(std::clamp(level[i] + noise.uniform(-48, 48), 0.0, 255.0));
    }
    return {std::move(image), label};
  }

  std::vector<std::string> class_names() const override { return {}; }
  std::string name(std::int64_t index) const override { return format("synthetic image {}", index); }

 private:
  /// cos(a + b) = cos a cos b - sin a sin b: only rows and columns need cosines.
  void add_wave(std::vector<double>& level, RandomStream& pattern) const {
    const double down = pattern.uniform(-2.5, 2.5), across = pattern.uniform(-2.5, 2.5);  // waves an image
    const double phase = pattern.uniform(0, 2 * std::numbers::pi);
    const double step = 2 * std::numbers::pi / static_cast<double>(side_);
    std::vector<double> cosine(side_), sine(side_);
    for (std::int64_t x = 0; x < side_; ++x) {
      cosine[x] = 24 * std::cos(across * step * static_cast<double>(x) + phase);
      sine[x] = 24 * std::sin(across * step * static_cast<double>(x) + phase);
    }
    for (std::int64_t y = 0; y < side_; ++y) {
      const double row_cosine = std::cos(down * step * static_cast<double>(y));
      const double row_sine = std::sin(down * step * static_cast<double>(y));
      for (std::int64_t x = 0; x < side_; ++x)
        level[y * side_ + x] += row_cosine * cosine[x] - row_sine * sine[x];
    }
  }

  std::int64_t side_, channels_, classes_, size_;
  Split split_;
};

}  // namespace

std::unique_ptr<ImageDataset> synthetic_images(const ImageDataOptions& options, Split split,
                                               std::int64_t size) {
  return std::make_unique<SyntheticImages>(options, split, size);
}

}  // namespace stoa
