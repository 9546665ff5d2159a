#include <png.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/image/decode.h"

namespace stoa {
namespace {

/// All state of one decoding, in the frame above those that libpng's longjmp leaves.
struct Decoder {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::span<const std::uint8_t> left;
  std::vector<std::uint8_t> samples;
  std::vector<png_bytep> rows;
  char message[160] = "";

  ~Decoder() { png_destroy_read_struct(&png, &info, nullptr); }
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  std::snprintf(static_cast<Decoder*>(png_get_error_ptr(png))->message, sizeof(Decoder::message), "%s",
                message);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void read_bytes(png_structp png, png_bytep to, std::size_t count) {
  auto& left = static_cast<Decoder*>(png_get_io_ptr(png))->left;
  if (count > left.size()) png_error(png, "the file ends early");
  std::memcpy(to, left.data(), count);
  left = left.subspan(count);
}

/// Asks libpng for 8-bit gray, gray + alpha, RGB or RGB + alpha.
void request_8_bits(png_structp png, png_infop info) {
  const auto type = png_get_color_type(png, info);
  if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (type == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(png);
  if (png_get_valid(png, info, PNG_INFO_tRNS)) png_set_tRNS_to_alpha(png);
  png_set_scale_16(png);
}

/// Fills `samples` with rows of 1 to 4 channels; false where libpng gave up.
bool decode(Decoder& decoder, std::size_t bytes, Image& image, const std::string& name) {
  decoder.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &decoder, on_error, on_warning);
  if (decoder.png) decoder.info = png_create_info_struct(decoder.png);
  if (!decoder.info) throw std::bad_alloc();
  const png_structp png = decoder.png;
  if (setjmp(png_jmpbuf(png)) != 0) return false;

  png_set_read_fn(png, &decoder, read_bytes);
  png_read_info(png, decoder.info);
  image.height = png_get_image_height(png, decoder.info);
  image.width = png_get_image_width(png, decoder.info);
  // deflate reaches about 1032 to 1, on up to 8 pixels a byte
  check_image_size(image.height, image.width, bytes, 8 * 1032, name);
  request_8_bits(png, decoder.info);
  png_set_interlace_handling(png);
  png_read_update_info(png, decoder.info);
  image.channels = png_get_channels(png, decoder.info);
  const std::size_t stride = png_get_rowbytes(png, decoder.info);
  decoder.samples.resize(stride * image.height);
  decoder.rows.resize(image.height);
  for (std::int64_t i = 0; i < image.height; ++i) decoder.rows[i] = decoder.samples.data() + i * stride;
  png_read_image(png, decoder.rows.data());
  png_read_end(png, nullptr);
  return true;
}

/// Lays an image whose last channel is alpha over white.
void lay_over_white(Image& image, const std::vector<std::uint8_t>& samples) {
  const std::int64_t channels = image.channels - 1;
  image.pixels.resize(image.height * image.width * channels);
  const std::uint8_t* from = samples.data();
  for (std::size_t i = 0; i < image.pixels.size(); i += channels, from += image.channels) {
    const int alpha = from[channels];
    for (std::int64_t c = 0; c < channels; ++c)
      image.pixels[i + c] = static_cast<std::uint8_t>((from[c] * alpha + 255 * (255 - alpha) + 127) / 255);
  }
  image.channels = channels;
}

}  // namespace

Image decode_png(std::span<const std::uint8_t> bytes, const std::string& name) {
  Decoder decoder;
  decoder.left = bytes;
  Image image;
  if (!decode(decoder, bytes.size(), image, name))
    throw DataError(
        format("{}: truncated or damaged PNG ({}); replace the file or remove it", name, decoder.message));
  if (image.channels % 2 == 0)
    lay_over_white(image, decoder.samples);
  else
    image.pixels = std::move(decoder.samples);
  return image;
}

std::vector<std::uint8_t> encode_png(const Image& image) {
  png_image header{};
  header.version = PNG_IMAGE_VERSION;
  header.width = static_cast<png_uint_32>(image.width);
  header.height = static_cast<png_uint_32>(image.height);
  header.format = image.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  std::vector<std::uint8_t> bytes(PNG_IMAGE_PNG_SIZE_MAX(header));
  png_alloc_size_t size = bytes.size();
  if (!png_image_write_to_memory(&header, bytes.data(), &size, 0, image.pixels.data(), 0, nullptr))
    throw Error(format("an image of {} x {} pixels and {} channels cannot be written as PNG: {}",
                       image.height, image.width, image.channels, header.message));
  bytes.resize(size);
  return bytes;
}

}  // namespace stoa
