#include "fuzz/fuzz.h"
#include "stoa/data/image/image.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  stoa::fuzz::refusing([&] {
    const stoa::Image image = stoa::decode_image({data, size}, "input");
    stoa::fuzz::require(image.channels == 1 || image.channels == 3);
    stoa::fuzz::require(image.pixels.size() ==
                        static_cast<std::size_t>(image.height * image.width * image.channels));
    if (image.pixels.size() > 100'000) return;  // enough seen; the rest is only slow
    stoa::fuzz::touch(stoa::resize_antialiased(stoa::with_channels(image, 1), 7, 9).pixels);
    stoa::fuzz::touch(stoa::resize(image, 3, 20).pixels);
  });
  return 0;
}
