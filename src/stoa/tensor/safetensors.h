#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

namespace stoa {

/// Tensors by name, with free text beside them.
struct TensorFile {
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

/// Writes a safetensors file atomically (temporary name, fsync, rename); tensors of any device are written
/// contiguous, in the order of their names. Throws Error naming both where two names share storage (save one,
/// and say so in the metadata), IoError where writing fails; the old file then stays. Returns the CRC-32 of
/// the file's bytes.
std::uint32_t save_safetensors(const std::filesystem::path& file, const TensorFile& content);

/// Reads a safetensors file into memory of its own. Throws IoError, or DataError naming file and tensor for
/// anything truncated or inconsistent (safetensors_header.h lists the checks).
TensorFile load_safetensors(const std::filesystem::path& file);

/// The same, only to be read: tensors lie in the mapped file (those that are not aligned there are copied),
/// so that nothing takes memory before it is used, and a file may be larger than memory. They stay valid when
/// the file is removed or replaced by another; writing to them is a fault.
TensorFile map_safetensors(const std::filesystem::path& file);

}  // namespace stoa
