#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace stoa {

/// Rows as columns: what is written into a row file.
struct RowColumns {
  std::vector<std::vector<std::uint32_t>> ids;
  std::vector<std::vector<float>> numerics;
  std::vector<std::uint8_t> labels;
};

/// Rows of a block; a block has no more, and all but the last of a file have as many.
inline constexpr std::size_t kBlockRows = 65536;

/// One block of a row file, within the file's bytes.
struct RowBlock {
  std::uint32_t rows = 0, checksum = 0;
  std::span<const std::uint8_t> payload;

  const std::uint32_t* ids(std::size_t field) const;
  const float* numerics(std::size_t fields, std::size_t numeric) const;
  const std::uint8_t* labels(std::size_t fields, std::size_t numerics) const;
};

/// A row file's header and blocks.
struct RowFile {
  std::uint32_t fields = 0, numerics = 0;
  std::uint64_t rows = 0, positives = 0;
  std::uint64_t encoding = 0;  ///< names the vocabulary its ids belong to
  std::vector<RowBlock> blocks;
};

/// Writes a row file, whole or not at all. Throws IoError.
void write_row_file(const std::filesystem::path& file, const RowColumns& columns, std::uint64_t encoding);

/// The structure of a row file, whose bytes begin at a multiple of 8. Throws DataError naming file and block
/// where it is truncated, too long or damaged; the blocks' contents are left to check_block().
RowFile parse_row_file(std::span<const std::uint8_t> bytes, const std::string& name);

/// Throws DataError naming file and block where the content was altered, an id is not below its field's size,
/// a label is not 0 or 1, or a number is not finite.
void check_block(const RowFile& file, std::size_t block, std::span<const std::int64_t> sizes,
                 const std::string& name);

}  // namespace stoa
