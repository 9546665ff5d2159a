#include "fuzz/fuzz.h"
#include "stoa/tensor/safetensors_header.h"

namespace {

void read(stoa::fuzz::Bytes bytes) {
  stoa::fuzz::refusing([&] {
    const auto header = stoa::parse_safetensors_header(bytes, "input");
    for (const auto& [name, entry] : header.entries)
      stoa::fuzz::touch(bytes.subspan(header.data_offset + entry.begin, entry.end - entry.begin));
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  read({data, size});
  if (size < 10) return 0;
  // the same with a header length that fits: two bytes say how much of the rest is data
  const std::size_t rest = size - 10, tail = std::size_t{data[8]} % (rest + 1), header = rest - tail;
  std::vector<std::uint8_t> fitting;
  for (int i = 0; i < 8; ++i) fitting.push_back(static_cast<std::uint8_t>(std::uint64_t{header} >> (8 * i)));
  fitting.insert(fitting.end(), data + 10, data + size);
  read(fitting);
  return 0;
}
