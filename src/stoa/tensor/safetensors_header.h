#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace stoa {

/// One tensor of a safetensors file: its bytes are [data_offset + begin, data_offset + end) of the file.
struct SafetensorsEntry {
  std::string dtype;  ///< as in the file: "F32", "BF16", "I64" ...
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;
};

/// What the header of a safetensors file says.
struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
  std::uint64_t data_offset = 0;  ///< where the data begins
};

/// Bytes of one element of a dtype; 0 for an unknown one.
std::uint64_t safetensors_dtype_size(const std::string& dtype);

/// Parses and checks the header of a whole file: a length that fits the file and 100 MB, JSON of the right
/// form, no name twice, known dtypes, byte counts that equal shape x dtype, and data without gap, overlap or
/// rest. Throws DataError naming `name` and the tensor.
SafetensorsHeader parse_safetensors_header(std::span<const std::uint8_t> bytes, const std::string& name);

}  // namespace stoa
