#include <array>
#include <cstring>

#include "fuzz/fuzz.h"
#include "stoa/data/text/token_file.h"

namespace {

using stoa::fuzz::Bytes;

void walk(const stoa::TokenIndex& index) {
  std::int64_t before = 0;
  for (std::int64_t s = 0; s <= index.sentences(); ++s) {
    const std::int64_t begin = index.sentence_begin(s);
    stoa::fuzz::require(begin >= before && begin <= index.tokens());
    before = begin;
  }
  before = 0;
  for (std::int64_t d = 0; d <= index.documents(); ++d) {
    const std::int64_t begin = index.document_begin(d);
    stoa::fuzz::require(begin >= before && begin <= index.sentences());
    before = begin;
  }
  stoa::fuzz::require(before == index.sentences());
}

void read_pair(Bytes index, Bytes tokens) {
  stoa::fuzz::refusing([&] {
    const auto text = [](Bytes bytes) { return std::string(bytes.begin(), bytes.end()); };
    const stoa::TokenFile file(text(index), text(tokens), "input", 1000);
    walk(file.index());
    std::array<std::int32_t, 64> ids{};
    const std::int64_t count = std::min<std::int64_t>(64, file.index().tokens());
    file.read(file.index().tokens() - count, count, ids.data());
    for (const std::int32_t id : ids) stoa::fuzz::require(id >= 0 && id < 1000);
  });
}

}  // namespace

// Number of bytes of the index, then index and tokens.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes input(data, size);
  stoa::fuzz::refusing([&] { walk(stoa::TokenIndex(input, "input")); });
  if (size < 2) return 0;
  const std::size_t cut = std::min<std::size_t>(size - 2, data[0] + 256u * data[1]);
  read_pair(input.subspan(2, cut), input.subspan(2 + cut));
  return 0;
}
