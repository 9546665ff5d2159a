#pragma once

#include <zstd.h>

#include <filesystem>
#include <string>

#include "support/click_files.h"

namespace stoa::test {

inline void write_zstd(const std::filesystem::path& file, const std::string& text) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 1));
  write_text(file, packed);
}

}  // namespace stoa::test
