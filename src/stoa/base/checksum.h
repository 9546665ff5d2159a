#pragma once

#include <cstdint>
#include <span>

namespace stoa {

/// CRC-32 (zlib's polynomial) of `bytes`, continuing from `start`. Guards checkpoint files.
std::uint32_t crc32(std::span<const std::uint8_t> bytes, std::uint32_t start = 0);

/// CRC-32C (Castagnoli) of `bytes`. Guards TFRecord and TensorBoard event records.
std::uint32_t crc32c(std::span<const std::uint8_t> bytes);

/// TFRecord's masked form of a CRC-32C: rotated right by 15 bits, plus 0xa282ead8.
std::uint32_t masked_crc32c(std::span<const std::uint8_t> bytes);

}  // namespace stoa
