#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace stoa {

/// Images and labels of CIFAR's binary files.
struct CifarImages {
  std::vector<std::uint8_t> pixels;  ///< [records, 32, 32, 3], interleaved
  std::vector<std::int64_t> labels;
};

/// Parses records of `label_bytes` label bytes (1 for CIFAR-10; 2 for CIFAR-100, whose second is the fine
/// label) and 3,072 bytes of red, green and blue planes. Throws DataError naming `name` where the bytes are
/// not whole records.
CifarImages parse_cifar(std::span<const std::uint8_t> bytes, int label_bytes, const std::string& name);

}  // namespace stoa
