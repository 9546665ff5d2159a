#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "stoa/data/image/image.h"

namespace stoa {

/// The two decoders behind decode_image. Both throw DataError.
Image decode_jpeg(std::span<const std::uint8_t> bytes, const std::string& name);
Image decode_png(std::span<const std::uint8_t> bytes, const std::string& name);

/// Throws DataError for a size that no image of so many bytes can have: a damaged or hostile header must not
/// make the decoder fill the memory. `most_per_byte` is what the format can reach at best, in pixels.
void check_image_size(std::uint64_t height, std::uint64_t width, std::uint64_t bytes,
                      std::uint64_t most_per_byte, const std::string& name);

}  // namespace stoa
