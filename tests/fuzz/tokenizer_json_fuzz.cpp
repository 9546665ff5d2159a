#include "stoa/data/text/tokenizer_json.h"

#include "fuzz/tokenizer_check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto [json, text] = stoa::fuzz::two_parts(data, size);
  stoa::fuzz::refusing([j = json, t = text] {
    const auto tokenizer = stoa::tokenizer_from_json(stoa::parse_sorted_json(j, "input"), "input", {},
                                                     stoa::BrokenUtf8::kReplace);
    stoa::fuzz::check_tokens(*tokenizer, t);
  });
  return 0;
}
