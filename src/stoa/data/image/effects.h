#pragma once

#include <cstdint>

#include "stoa/data/image/image.h"

// What RandAugment does to images, each a plain function of its arguments (widenet.md 3, "Input pipeline").
// Pixels that an operation leaves uncovered are filled with kFill. Fractions are cut off, as casting to 8
// bits does.
namespace stoa::effects {

constexpr std::uint8_t kFill = 128;

Image invert(Image image);
/// Each channel stretched so that its darkest sample becomes 0 and its brightest 255.
Image autocontrast(Image image);
/// Each channel's histogram flattened.
Image equalize(Image image);
/// Keeps the highest `bits` bits (0 to 8) of each sample.
Image posterize(Image image, int bits);
/// Inverts the samples that are at least `threshold`.
Image solarize(Image image, int threshold);
/// Adds `addition` to the samples below `threshold`.
Image solarize_add(Image image, int addition, int threshold = 128);

/// Blends with a degenerate image: 0 gives that image, 1 the original, beyond 1 moves away from it.
/// Degenerate are: the gray image, the mean gray, black, and the 3 x 3 smoothed image (its border as it was).
Image color(Image image, double factor);
Image contrast(Image image, double factor);
Image brightness(Image image, double factor);
Image sharpness(Image image, double factor);

/// Counter-clockwise, about the centre.
Image rotate(const Image& image, double degrees);
/// Output (x, y) shows input (x + amount y, y), or (x, y + amount x).
Image shear_x(const Image& image, double amount);
Image shear_y(const Image& image, double amount);
/// Moves the content right or down (left or up where negative).
Image translate_x(const Image& image, std::int64_t pixels);
Image translate_y(const Image& image, std::int64_t pixels);

/// Fills the rows row - reach ... row + reach - 1 and the same columns, as far as they are within the image.
Image cutout(Image image, std::int64_t row, std::int64_t column, std::int64_t reach);

Image flip(Image image);

}  // namespace stoa::effects
