#include "fuzz/fuzz.h"
#include "stoa/data/image/idx.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  stoa::fuzz::refusing([&] {
    const auto array = stoa::parse_idx({data, size}, "input");
    stoa::fuzz::touch(array.values);
    std::uint64_t count = 1;
    for (const auto extent : array.shape) count *= static_cast<std::uint64_t>(extent);
    stoa::fuzz::require(count == array.values.size());
  });
  return 0;
}
