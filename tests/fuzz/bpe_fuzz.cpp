#include "stoa/data/text/byte_bpe.h"

#include "fuzz/tokenizer_check.h"
#include "stoa/data/text/byte_level.h"
#include "stoa/data/text/byte_tokenizer.h"
#include "stoa/data/text/tokenizer_json.h"

namespace {

stoa::SortedJson bytes() {
  stoa::SortedJson vocabulary;
  for (int byte = 0; byte < 256; ++byte)
    vocabulary[stoa::byte_level::written(std::string(1, static_cast<char>(byte)))] = byte;
  return vocabulary;
}

/// A vocabulary with all that these lines of merges join.
stoa::SortedJson vocabulary_of(std::string_view merges) {
  stoa::SortedJson vocabulary = bytes();
  for (std::size_t begin = 0; begin < merges.size() && vocabulary.size() < 1000;) {
    const std::size_t end = std::min(merges.find('\n', begin), merges.size());
    std::string joined(merges.substr(begin, end - begin));
    begin = end + 1;
    if (const std::size_t space = joined.find(' '); space != std::string::npos) joined.erase(space, 1);
    if (stoa::unicode::valid_prefix(joined) == joined.size() && !vocabulary.contains(joined))
      vocabulary[joined] = vocabulary.size();
  }
  return vocabulary;
}

/// Bytes in are bytes out: nothing is lost but what was not UTF-8.
void check_lossless(const stoa::Tokenizer& tokenizer, std::string_view text) {
  stoa::fuzz::require(stoa::fuzz::check_tokens(tokenizer, text) == stoa::unicode::repaired(text));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const stoa::ByteTokenizer plain(stoa::BrokenUtf8::kReplace);
  static const auto fixed = [] {
    constexpr std::string_view kMerges = "a b\n\xC4\xA0 a\ne e\nee ee\nab ab\n\xC3\x83 \xC2\xA9\n";
    return stoa::tokenizer_from_merges(vocabulary_of(kMerges), kMerges, "fixed", {},
                                       stoa::BrokenUtf8::kReplace);
  }();
  const auto [merges, text] = stoa::fuzz::two_parts(data, size);
  check_lossless(plain, text);
  check_lossless(*fixed, text);
  if (merges.empty()) return 0;
  stoa::fuzz::refusing([m = merges, t = text] {
    stoa::TokenizerConfig config;
    config.add_prefix_space = m.size() % 2 == 0;
    const auto read =
        stoa::tokenizer_from_merges(vocabulary_of(m), m, "input", config, stoa::BrokenUtf8::kReplace);
    if (*config.add_prefix_space)
      stoa::fuzz::check_tokens(*read, t);
    else
      check_lossless(*read, t);
  });
  return 0;
}
