#include <array>
#include <cstring>

#include "fuzz/fuzz.h"
#include "stoa/base/checksum.h"
#include "stoa/data/tabular/key_counts.h"
#include "stoa/data/tabular/row_file.h"
#include "stoa/data/tabular/vocabulary.h"

namespace {

using stoa::fuzz::Bytes;

// Files are mapped at pages; here bytes are copied to where words are aligned.
struct Aligned {
  explicit Aligned(Bytes from) : words(from.size() / 8 + 1), size(from.size()) {
    if (size > 0) std::memcpy(words.data(), from.data(), size);
  }
  std::uint8_t* data() { return reinterpret_cast<std::uint8_t*>(words.data()); }
  Bytes bytes() { return {data(), size}; }
  void put(std::size_t place, std::uint32_t value) {
    if (place + 4 <= size) std::memcpy(data() + place, &value, 4);
  }
  std::vector<std::uint64_t> words;
  std::size_t size;
};

void read_rows(Bytes bytes) {
  stoa::fuzz::refusing([&] {
    const stoa::RowFile file = stoa::parse_row_file(bytes, "input");
    const std::vector<std::int64_t> sizes(file.fields, 1000);
    for (std::size_t block = 0; block < file.blocks.size(); ++block)
      stoa::check_block(file, block, sizes, "input");
  });
}

void read_vocabulary(Bytes bytes) {
  stoa::fuzz::refusing([&] {
    const stoa::Vocabulary vocabulary(bytes, "input");
    for (std::int64_t id = 0; id < vocabulary.size(); ++id) {
      const std::string text = vocabulary.text(id);
      stoa::fuzz::touch({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
    }
    const std::array<std::uint64_t, 3> keys = {0, 1, ~std::uint64_t{0}};
    std::array<std::uint32_t, 3> ids{};
    vocabulary.ids(keys, ids.data());
    for (const std::uint32_t id : ids)
      stoa::fuzz::require(id == stoa::Vocabulary::kAbsent ||
                          id < static_cast<std::uint64_t>(vocabulary.size()));
  });
}

void read_run(Bytes bytes) {
  stoa::fuzz::refusing([&] {
    stoa::ByteReader reader(bytes, "input");
    const stoa::KeyRun run = stoa::KeyRun::read(reader);
    for (std::size_t i = 0; i < run.ends.size(); ++i) {
      const std::string_view text = run.text(i);
      stoa::fuzz::touch({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
    }
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Aligned input({data, size});
  read_rows(input.bytes());
  read_vocabulary(input.bytes());
  read_run(input.bytes());
  // the same with the checksums put right: a random change would hardly ever get past them
  Aligned vocabulary(input.bytes());
  if (size >= 40) {
    vocabulary.put(32, stoa::crc32(vocabulary.bytes().subspan(40)));
    vocabulary.put(36, stoa::crc32(vocabulary.bytes().first(36)));
    read_vocabulary(vocabulary.bytes());
  }
  if (size >= 80) {  // the header and the first block
    input.put(44, stoa::crc32(input.bytes().first(44)));
    input.put(72, stoa::crc32(input.bytes().subspan(80)));
    input.put(76, stoa::crc32(input.bytes().subspan(64, 12)));
    read_rows(input.bytes());
  }
  return 0;
}
