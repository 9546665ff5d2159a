#include <cstdio>
// jpeglib.h needs FILE and size_t before it
#include <jpeglib.h>

#include <jerror.h>

#include <csetjmp>
#include <cstring>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/image/decode.h"

namespace stoa {
namespace {

constexpr int kMostScans = 200;  // progressive files have about 10; each scan costs a pass over the image

/// All state of one decoding. libjpeg reports errors through longjmp, so nothing with a destructor may live
/// in the frames it jumps over: it lives here, in the frame above.
struct Decoder {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX] = "";
  std::vector<std::uint8_t> row;  // one row of CMYK samples

  ~Decoder() { jpeg_destroy_decompress(&info); }
};

Decoder& decoder_of(j_common_ptr info) {
  return *static_cast<Decoder*>(info->client_data);
}

[[noreturn]] void give_up(j_common_ptr info) {
  Decoder& decoder = decoder_of(info);
  info->err->format_message(info, decoder.message);
  std::longjmp(decoder.escape, 1);
}

/// libjpeg warns where it has to make up pixels: for us that is damage. Four warnings are about harmless
/// leftovers.
void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_TOO_MUCH_DATA:
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
      return;
    default:
      give_up(info);
  }
}

void on_progress(j_common_ptr info) {
  Decoder& decoder = decoder_of(info);
  if (decoder.info.input_scan_number <= kMostScans) return;
  std::strcpy(decoder.message, "too many scans");
  std::longjmp(decoder.escape, 1);
}

/// One row of CMYK as RGB. Adobe writes the samples inverted (255 is no ink).
void convert_cmyk(const std::uint8_t* cmyk, std::int64_t width, bool inverted, std::uint8_t* rgb) {
  for (std::int64_t i = 0; i < width; ++i, cmyk += 4, rgb += 3)
    for (int c = 0; c < 3; ++c) {
      const int light = inverted ? cmyk[c] * cmyk[3] : (255 - cmyk[c]) * (255 - cmyk[3]);
      rgb[c] = static_cast<std::uint8_t>((light + 127) / 255);
    }
}

void choose_output(jpeg_decompress_struct& info, Image& image, const std::string& name) {
  switch (info.jpeg_color_space) {
    case JCS_GRAYSCALE:
      info.out_color_space = JCS_GRAYSCALE;
      image.channels = 1;
      return;
    case JCS_RGB:
    case JCS_YCbCr:
      info.out_color_space = JCS_RGB;
      image.channels = 3;
      return;
    case JCS_CMYK:
    case JCS_YCCK:
      info.out_color_space = JCS_CMYK;
      image.channels = 3;
      return;
    default:
      throw DataError(format("{}: JPEG of {} components with unknown colours; convert it to RGB or gray",
                             name, info.num_components));
  }
}

/// Fills `image`; false where libjpeg gave up.
bool decode(Decoder& decoder, std::span<const std::uint8_t> bytes, Image& image, const std::string& name) {
  jpeg_decompress_struct& info = decoder.info;
  info.err = jpeg_std_error(&decoder.errors);
  decoder.errors.error_exit = give_up;
  decoder.errors.emit_message = on_message;
  decoder.progress.progress_monitor = on_progress;
  info.client_data = &decoder;
  if (setjmp(decoder.escape) != 0) return false;

  jpeg_create_decompress(&info);
  info.progress = &decoder.progress;
  jpeg_mem_src(&info, bytes.data(), bytes.size());
  jpeg_read_header(&info, TRUE);
  // at least one bit for each 8 x 8 block
  check_image_size(info.image_height, info.image_width, bytes.size(), 1024, name);
  choose_output(info, image, name);
  jpeg_start_decompress(&info);
  image.height = info.output_height;
  image.width = info.output_width;
  image.pixels.resize(image.height * image.width * image.channels);
  const bool cmyk = info.out_color_space == JCS_CMYK;
  if (cmyk) decoder.row.resize(4 * image.width);
  while (info.output_scanline < info.output_height) {
    std::uint8_t* to = image.at(info.output_scanline, 0);
    JSAMPROW row = cmyk ? decoder.row.data() : to;
    jpeg_read_scanlines(&info, &row, 1);
    if (cmyk) convert_cmyk(row, image.width, info.saw_Adobe_marker, to);
  }
  jpeg_finish_decompress(&info);
  return true;
}

}  // namespace

Image decode_jpeg(std::span<const std::uint8_t> bytes, const std::string& name) {
  Decoder decoder;
  Image image;
  if (!decode(decoder, bytes, image, name))
    throw DataError(
        format("{}: truncated or damaged JPEG ({}); replace the file or remove it", name, decoder.message));
  return image;
}

}  // namespace stoa
