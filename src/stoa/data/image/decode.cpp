#include "stoa/data/image/decode.h"

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa {

Image decode_image(std::span<const std::uint8_t> bytes, const std::string& name) {
  if (bytes.size() >= 2 && bytes[0] == 0xff && bytes[1] == 0xd8) return decode_jpeg(bytes, name);
  if (bytes.size() >= 4 && bytes[0] == 0x89 && bytes[1] == 'P' && bytes[2] == 'N' && bytes[3] == 'G')
    return decode_png(bytes, name);
  std::string start;
  for (std::size_t i = 0; i < bytes.size() && i < 4; ++i) start += format("{}{:02x}", i ? " " : "", bytes[i]);
  throw DataError(format("{}: neither JPEG nor PNG ({} bytes{}); convert the file or remove it", name,
                         bytes.size(), start.empty() ? "" : ", starting with " + start));
}

void check_image_size(std::uint64_t height, std::uint64_t width, std::uint64_t bytes,
                      std::uint64_t most_per_byte, const std::string& name) {
  constexpr std::uint64_t kMostPixels = 1ull << 27;  // 384 MiB of RGB
  if (height == 0 || width == 0 || height > kMostPixels / width)
    throw DataError(format("{}: {} x {} pixels, at most {} are read; shrink the image or remove it", name,
                           height, width, kMostPixels));
  constexpr std::uint64_t kSmall = 1u << 20;
  if (height * width > kSmall && height * width > most_per_byte * bytes)
    throw DataError(
        format("{}: damaged, {} bytes cannot hold the {} x {} pixels that its header claims; replace the "
               "file or remove it",
               name, bytes, height, width));
}

}  // namespace stoa
