#include "fuzz/fuzz.h"
#include "stoa/data/image/cifar.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  for (const int label_bytes : {1, 2})
    stoa::fuzz::refusing([&] {
      const auto images = stoa::parse_cifar({data, size}, label_bytes, "input");
      stoa::fuzz::require(images.pixels.size() == images.labels.size() * 3072);
    });
  return 0;
}
