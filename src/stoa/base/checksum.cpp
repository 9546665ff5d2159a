#include "stoa/base/checksum.h"

#include <zlib.h>

#include <array>
#include <cstddef>

namespace stoa {

namespace {

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

// Slicing-by-8: table k advances a byte that has k more bytes behind it, so that 8 bytes are folded in one
// round.
constexpr Tables make_tables() {
  Tables tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1u) != 0 ? 0x82f63b78u : 0u);
    tables[0][byte] = value;
  }
  for (std::size_t byte = 0; byte < 256; ++byte)
    for (std::size_t k = 1; k < 8; ++k)
      tables[k][byte] = (tables[k - 1][byte] >> 8) ^ tables[0][tables[k - 1][byte] & 0xffu];
  return tables;
}

constexpr Tables kTables = make_tables();

}  // namespace

std::uint32_t crc32(std::span<const std::uint8_t> bytes, std::uint32_t start) {
  if (bytes.empty()) return start;  // zlib answers a null pointer with its initial value instead
  return static_cast<std::uint32_t>(::crc32_z(start, bytes.data(), bytes.size()));
}

std::uint32_t crc32c(std::span<const std::uint8_t> bytes) {
  std::uint32_t value = 0xffffffffu;
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    std::uint32_t next = 0;
    for (std::size_t k = 0; k < 4; ++k) {
      next ^= kTables[7 - k][((value >> (8 * k)) & 0xffu) ^ bytes[i + k]];
      next ^= kTables[3 - k][bytes[i + 4 + k]];
    }
    value = next;
  }
  for (; i < bytes.size(); ++i) value = (value >> 8) ^ kTables[0][(value & 0xffu) ^ bytes[i]];
  return ~value;
}

std::uint32_t masked_crc32c(std::span<const std::uint8_t> bytes) {
  const std::uint32_t value = crc32c(bytes);
  return ((value >> 15) | (value << 17)) + 0xa282ead8u;
}

}  // namespace stoa
