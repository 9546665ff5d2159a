#include "fuzz/fuzz.h"
#include "stoa/base/checksum.h"
#include "stoa/data/image/tfrecord.h"

namespace {

using stoa::fuzz::Bytes;

void read(Bytes bytes) {
  stoa::fuzz::refusing([&] {
    for (const auto& record : stoa::index_tfrecords(bytes, "input"))
      stoa::fuzz::refusing([&] {
        const Bytes message = stoa::tfrecord_data(bytes, record, "input");
        stoa::fuzz::touch(stoa::parse_image_example(message, "input").encoded);
      });
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes input(data, size);
  read(input);
  stoa::fuzz::refusing([&] { stoa::fuzz::touch(stoa::parse_image_example(input, "input").encoded); });
  if (size < 8) return 0;
  // a frame whose length is any number, with the checksum that goes with it
  std::vector<std::uint8_t> framed(data, data + 8);
  const std::uint32_t sum = stoa::masked_crc32c(framed);
  for (int i = 0; i < 4; ++i) framed.push_back(static_cast<std::uint8_t>(sum >> (8 * i)));
  framed.insert(framed.end(), data + 8, data + size);
  read(framed);
  return 0;
}
