#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace stoa {

/// One regular file inside a tar archive.
struct TarFile {
  std::string name;  ///< full path within the archive
  std::uint64_t offset = 0, size = 0;
};

/// The regular files of an uncompressed tar archive (ustar, GNU long names, pax paths and sizes), in their
/// order. Throws DataError naming `name` where the archive is truncated or damaged.
std::vector<TarFile> index_tar(std::span<const std::uint8_t> bytes, const std::string& name);

}  // namespace stoa
