#pragma once

#include <cstdio>
// jpeglib.h needs FILE and size_t before it
#include <jpeglib.h>

#include <png.h>
#include <zlib.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "stoa/base/checksum.h"

// Small valid files of every image format, made in memory: for tests that then read, cut or alter them.
namespace stoa::test {

using Bytes = std::vector<std::uint8_t>;

inline void save(const std::filesystem::path& file, const Bytes& bytes) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream out(file, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!out) throw std::runtime_error("cannot write " + file.string());
}

inline Bytes load(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + file.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void append(Bytes& to, const Bytes& bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

inline Bytes text(const std::string& content) {
  return {content.begin(), content.end()};
}

inline Bytes cut(Bytes bytes, std::size_t size) {
  bytes.resize(size);
  return bytes;
}

inline Bytes gzip(const Bytes& bytes) {
  z_stream stream{};
  if (deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) throw std::bad_alloc();
  Bytes packed(deflateBound(&stream, bytes.size()) + 32);
  stream.next_in = const_cast<std::uint8_t*>(bytes.data());
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = packed.data();
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

struct JpegForm {
  J_COLOR_SPACE samples = JCS_RGB;  ///< of the samples that are passed
  J_COLOR_SPACE stored = JCS_YCbCr;
  bool adobe = false;  ///< with Adobe's marker
  bool progressive = false;
  int quality = 100;
};

/// A JPEG file of interleaved samples, without chroma subsampling.
inline Bytes jpeg(int height, int width, const Bytes& samples, const JpegForm& form = {}) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* buffer = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &buffer, &size);
  info.image_height = height;
  info.image_width = width;
  info.in_color_space = form.samples;
  info.input_components = form.samples == JCS_GRAYSCALE ? 1 : form.samples == JCS_RGB ? 3 : 4;
  jpeg_set_defaults(&info);
  jpeg_set_colorspace(&info, form.stored);
  info.write_Adobe_marker = form.adobe ? TRUE : FALSE;
  jpeg_set_quality(&info, form.quality, TRUE);
  for (int i = 0; i < info.num_components; ++i)
    info.comp_info[i].h_samp_factor = info.comp_info[i].v_samp_factor = 1;
  if (form.progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < info.image_height) {
    auto* row =
        const_cast<std::uint8_t*>(samples.data()) + info.next_scanline * width * info.input_components;
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  Bytes bytes(buffer, buffer + size);
  jpeg_destroy_compress(&info);
  std::free(buffer);
  return bytes;
}

struct PngForm {
  int type = PNG_COLOR_TYPE_RGB;
  int depth = 8;
  bool interlaced = false;
  std::vector<png_color> palette = {};
  Bytes palette_alpha = {};
};

/// A PNG file of rows packed as PNG packs them (16-bit samples big-endian, small ones from the high bits).
inline Bytes png(int height, int width, const Bytes& rows, const PngForm& form = {}) {
  Bytes bytes;
  png_structp out = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(out);
  png_set_write_fn(
      out, &bytes,
      [](png_structp p, png_bytep data, std::size_t count) {
        auto& to = *static_cast<Bytes*>(png_get_io_ptr(p));
        to.insert(to.end(), data, data + count);
      },
      nullptr);
  png_set_IHDR(out, info, width, height, form.depth, form.type,
               form.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  if (!form.palette.empty())
    png_set_PLTE(out, info, form.palette.data(), static_cast<int>(form.palette.size()));
  if (!form.palette_alpha.empty())
    png_set_tRNS(out, info, form.palette_alpha.data(), static_cast<int>(form.palette_alpha.size()), nullptr);
  png_write_info(out, info);
  const std::size_t stride = rows.size() / height;
  std::vector<png_bytep> pointers(height);
  for (int i = 0; i < height; ++i) pointers[i] = const_cast<std::uint8_t*>(rows.data()) + i * stride;
  png_write_image(out, pointers.data());
  png_write_end(out, nullptr);
  png_destroy_write_struct(&out, &info);
  return bytes;
}

/// A PNG of one colour.
inline Bytes plain_png(int size, std::uint8_t value) {
  return png(size, size, Bytes(3 * size * size, value));
}

inline Bytes idx(const std::vector<std::uint32_t>& shape, const Bytes& values) {
  Bytes bytes = {0, 0, 8, static_cast<std::uint8_t>(shape.size())};
  for (const std::uint32_t size : shape)
    for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<std::uint8_t>(size >> shift));
  append(bytes, values);
  return bytes;
}

/// The frame of one TFRecord around its data.
inline Bytes tf_record(const Bytes& data) {
  Bytes bytes;
  const auto put = [&](std::uint64_t value, int count) {
    for (int i = 0; i < count; ++i) bytes.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  };
  put(data.size(), 8);
  put(masked_crc32c(bytes), 4);
  append(bytes, data);
  put(masked_crc32c(data), 4);
  return bytes;
}

/// A length-delimited protobuf field.
inline Bytes proto(int field, const Bytes& content) {
  Bytes bytes = {static_cast<std::uint8_t>(field << 3 | 2)};
  std::size_t size = content.size();
  for (; size >= 0x80; size >>= 7) bytes.push_back(static_cast<std::uint8_t>(size | 0x80));
  bytes.push_back(static_cast<std::uint8_t>(size));
  append(bytes, content);
  return bytes;
}

inline Bytes varint(std::uint64_t value) {
  Bytes bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<std::uint8_t>(value | 0x80));
  bytes.push_back(static_cast<std::uint8_t>(value));
  return bytes;
}

/// One entry of a tf.Example's feature map: `kind` 1 is a BytesList, 2 a FloatList, 3 an Int64List.
inline Bytes feature(const std::string& key, int kind, const Bytes& list) {
  Bytes entry = proto(1, text(key));
  append(entry, proto(2, proto(kind, list)));
  return proto(1, entry);
}

/// A tf.Example of ImageNet's form.
inline Bytes image_example(const Bytes& encoded, std::int64_t label) {
  Bytes features = feature("image/height", 3, proto(1, varint(500)));
  append(features, feature("image/encoded", 1, proto(1, encoded)));
  append(features, feature("image/class/text", 1, proto(1, text("great white shark"))));
  append(features, feature("image/class/label", 3, proto(1, varint(static_cast<std::uint64_t>(label)))));
  return proto(1, features);
}

/// One member of a tar archive, `type` '0' for a regular file.
inline Bytes tar_member(const std::string& name, const Bytes& content, char type = '0') {
  Bytes block(512);
  std::memcpy(block.data(), name.data(), std::min<std::size_t>(name.size(), 100));
  std::snprintf(reinterpret_cast<char*>(&block[100]), 8, "%07o", 0644);
  std::snprintf(reinterpret_cast<char*>(&block[124]), 12, "%011zo", content.size());
  std::memset(&block[148], ' ', 8);
  block[156] = static_cast<std::uint8_t>(type);
  std::memcpy(&block[257], "ustar\00000", 8);
  unsigned sum = 0;
  for (const std::uint8_t byte : block) sum += byte;
  std::snprintf(reinterpret_cast<char*>(&block[148]), 8, "%06o", sum);
  append(block, content);
  block.resize((block.size() + 511) / 512 * 512);
  return block;
}

inline Bytes tar(const std::vector<std::pair<std::string, Bytes>>& members) {
  Bytes archive;
  for (const auto& [name, content] : members) append(archive, tar_member(name, content));
  archive.resize(archive.size() + 1024);
  return archive;
}

}  // namespace stoa::test
