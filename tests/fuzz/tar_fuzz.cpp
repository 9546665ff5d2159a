#include <algorithm>
#include <cstdio>

#include "fuzz/fuzz.h"
#include "stoa/data/image/tar.h"

namespace {

void index(stoa::fuzz::Bytes bytes) {
  stoa::fuzz::refusing([&] {
    for (const auto& file : stoa::index_tar(bytes, "input"))
      stoa::fuzz::touch(bytes.subspan(file.offset, file.size));
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  index({data, size});
  // the same with every block's checksum put right: a random change would hardly ever get past it
  std::vector<std::uint8_t> bytes(data, data + size);
  for (std::size_t block = 0; block + 512 <= size; block += 512) {
    unsigned sum = 0;
    for (std::size_t i = 0; i < 512; ++i) sum += i >= 148 && i < 156 ? ' ' : bytes[block + i];
    if (sum == 8 * ' ') continue;  // the end mark
    char text[8];
    std::snprintf(text, sizeof text, "%06o", sum);
    std::copy_n(text, 8, reinterpret_cast<char*>(&bytes[block + 148]));
  }
  index(bytes);
  return 0;
}
