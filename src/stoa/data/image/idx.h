#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace stoa {

/// An array of bytes in IDX form (MNIST's): big-endian magic 00 00 08 RANK, RANK sizes of 32 bits, then the
/// values.
struct IdxArray {
  std::vector<std::int64_t> shape;
  std::span<const std::uint8_t> values;  ///< within the parsed bytes
};

/// Throws DataError naming `name` where the bytes are truncated, too long, or no IDX array of uint8.
IdxArray parse_idx(std::span<const std::uint8_t> bytes, const std::string& name);

}  // namespace stoa
