#include "stoa/data/tabular/row_file.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "stoa/base/checksum.h"
#include "stoa/base/files.h"
#include "stoa/data/tabular/bytes.h"

namespace stoa {
namespace {

// The file: a header of 64 bytes (magic, u32 fields, u32 numerics, u64 rows, u64 positives, u64 encoding, u32
// rows of a full block, u32 CRC-32 of the header so far, zeros), then blocks: u32 rows, u32 number, u32
// CRC-32 of the payload, u32 CRC-32 of these 12 bytes; the payload: u32 ids field by field, f32 numbers
// column by column, u8 labels, zeros up to a multiple of 8 bytes.
constexpr std::string_view kMagic = "STOAROW1";
constexpr std::size_t kHeader = 64, kBlockHeader = 16, kSummed = 44;
constexpr std::uint32_t kMostColumns = 1 << 16;

std::uint64_t payload_size(std::uint64_t rows, std::uint64_t columns) {
  return (rows * (4 * columns + 1) + 7) / 8 * 8;
}

std::span<const std::uint8_t> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::string header_of(const RowColumns& columns, std::uint64_t encoding) {
  ByteWriter header;
  header.bytes(kMagic.data(), kMagic.size());
  header.number(static_cast<std::uint32_t>(columns.ids.size()));
  header.number(static_cast<std::uint32_t>(columns.numerics.size()));
  header.number(static_cast<std::uint64_t>(columns.labels.size()));
  header.number(static_cast<std::uint64_t>(std::ranges::count(columns.labels, std::uint8_t{1})));
  header.number(encoding);
  header.number(static_cast<std::uint32_t>(kBlockRows));
  header.number(crc32(as_bytes(header.text())));
  const std::string padding(kHeader - header.text().size(), '\0');
  return header.text() + padding;
}

/// Appends one block, column by column as they lie.
void append_block(const Append& append, const RowColumns& columns, std::size_t number) {
  const std::size_t begin = number * kBlockRows;
  const std::size_t rows = std::min(kBlockRows, columns.labels.size() - begin);
  std::vector<std::span<const std::byte>> parts;
  const auto add = [&](const auto& column) {
    parts.push_back(std::as_bytes(std::span(column).subspan(begin, rows)));
  };
  for (const auto& column : columns.ids) add(column);
  for (const auto& column : columns.numerics) add(column);
  add(columns.labels);
  const std::size_t width = columns.ids.size() + columns.numerics.size();
  constexpr std::array<std::byte, 8> kZeros{};
  parts.push_back(std::span(kZeros).first(payload_size(rows, width) - rows * (4 * width + 1)));
  std::uint32_t checksum = 0;
  for (const auto part : parts)
    checksum = crc32({reinterpret_cast<const std::uint8_t*>(part.data()), part.size()}, checksum);
  ByteWriter header;
  header.number(static_cast<std::uint32_t>(rows));
  header.number(static_cast<std::uint32_t>(number));
  header.number(checksum);
  header.number(crc32(as_bytes(header.text())));
  append(std::as_bytes(std::span(header.text())));
  for (const auto part : parts) append(part);
}

}  // namespace

const std::uint32_t* RowBlock::ids(std::size_t field) const {
  return reinterpret_cast<const std::uint32_t*>(payload.data()) + field * rows;
}

const float* RowBlock::numerics(std::size_t fields, std::size_t numeric) const {
  return reinterpret_cast<const float*>(payload.data()) + (fields + numeric) * rows;
}

const std::uint8_t* RowBlock::labels(std::size_t fields, std::size_t numerics) const {
  return payload.data() + 4 * (fields + numerics) * rows;
}

void write_row_file(const std::filesystem::path& file, const RowColumns& columns, std::uint64_t encoding) {
  write_file_atomically(file, [&](const Append& append) {
    const std::string header = header_of(columns, encoding);
    append(std::as_bytes(std::span(header)));
    for (std::size_t block = 0; block * kBlockRows < columns.labels.size(); ++block)
      append_block(append, columns, block);
  });
}

RowFile parse_row_file(std::span<const std::uint8_t> bytes, const std::string& name) {
  const auto refuse = [&](const std::string& what) {
    throw DataError(format("{}: {}; prepare the data again", name, what));
  };
  if (bytes.size() < kHeader) refuse("truncated: the header is not whole");
  ByteReader reader(bytes, name);
  const auto magic = reader.take(kMagic.size());
  if (!std::equal(magic.begin(), magic.end(), kMagic.begin())) refuse("no rows of prepared data");
  RowFile file;
  file.fields = reader.number<std::uint32_t>();
  file.numerics = reader.number<std::uint32_t>();
  file.rows = reader.number<std::uint64_t>();
  file.positives = reader.number<std::uint64_t>();
  file.encoding = reader.number<std::uint64_t>();
  const auto block_rows = reader.number<std::uint32_t>();
  if (reader.number<std::uint32_t>() != crc32(bytes.first(kSummed)) || block_rows != kBlockRows ||
      file.fields > kMostColumns || file.numerics > kMostColumns || file.positives > file.rows)
    refuse("the header was altered: its checksum or content is wrong");
  reader.take(kHeader - kSummed - 4);
  const std::uint64_t columns = std::uint64_t{file.fields} + file.numerics;
  for (std::uint64_t done = 0; done < file.rows;) {
    const std::size_t number = file.blocks.size();
    if (reader.left() < kBlockHeader) refuse(format("truncated in block {}", number));
    const auto start = bytes.size() - reader.left();
    const auto rows = reader.number<std::uint32_t>(), written = reader.number<std::uint32_t>();
    const auto checksum = reader.number<std::uint32_t>(), header = reader.number<std::uint32_t>();
    if (header != crc32(bytes.subspan(start, 12)) || written != number ||
        rows != std::min<std::uint64_t>(kBlockRows, file.rows - done))
      refuse(format("the header of block {} was altered", number));
    const std::uint64_t size = payload_size(rows, columns);
    if (size > reader.left()) refuse(format("truncated in block {}", number));
    file.blocks.push_back({rows, checksum, reader.take(size)});
    done += rows;
  }
  if (reader.left() != 0) refuse(format("{} bytes follow the last block", reader.left()));
  return file;
}

void check_block(const RowFile& file, std::size_t block, std::span<const std::int64_t> sizes,
                 const std::string& name) {
  const auto refuse = [&](const std::string& what) {
    throw DataError(format("{}, block {}: {}; prepare the data again", name, block, what));
  };
  const RowBlock& rows = file.blocks[block];
  if (crc32(rows.payload) != rows.checksum) refuse("the block was altered: its checksum is wrong");
  for (std::size_t field = 0; field < file.fields; ++field) {
    std::uint32_t largest = 0;
    for (const std::uint32_t id : std::span(rows.ids(field), rows.rows)) largest = std::max(largest, id);
    if (largest >= sizes[field])
      refuse(format("field {} has the id {}, ids are below {}", field, largest, sizes[field]));
  }
  for (std::size_t numeric = 0; numeric < file.numerics; ++numeric) {
    float sum = 0;  // of zeros, or NaN where a number is not finite
    for (const float value : std::span(rows.numerics(file.fields, numeric), rows.rows)) sum += value * 0.0f;
    if (!(sum == 0)) refuse(format("numeric column {} has a number that is not finite", numeric));
  }
  std::uint8_t labels = 0;
  for (const std::uint8_t label : std::span(rows.labels(file.fields, file.numerics), rows.rows))
    labels |= label;
  if (labels > 1) refuse("a label is not 0 or 1");
}

}  // namespace stoa
