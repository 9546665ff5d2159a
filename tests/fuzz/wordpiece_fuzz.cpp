#include "stoa/data/text/wordpiece.h"

#include "fuzz/tokenizer_check.h"
#include "stoa/data/text/tokenizer_json.h"

namespace {

/// Of a fixed vocabulary, with added tokens of every kind.
stoa::WordPiece make(int rules) {
  std::vector<std::string> tokens{"[UNK]", "[MASK]",     "the",          "##s", "e", "##e",
                                  "a",     "##\xCC\x81", "\xE4\xB8\xAD", "don", "'"};
  stoa::TokenizerParts parts;
  parts.added = {{.content = "[MASK]", .id = 1},
                 {.content = "<x>", .id = 11, .left_strip = true, .right_strip = true, .of_model = false},
                 {.content = "Caf\xC3\xA9",
                  .id = 12,
                  .special = false,
                  .single_word = true,
                  .normalized = true,
                  .of_model = false}};
  if (rules % 2 == 0) parts.added.pop_back();  // the way without normalised tokens is another
  for (const auto& token : parts.added)
    if (!token.of_model) tokens.push_back(token.content);
  parts.tokens = stoa::TokenList(tokens);
  parts.broken = rules == 0 ? stoa::BrokenUtf8::kRefuse : stoa::BrokenUtf8::kReplace;
  stoa::WordPieceOptions options;
  options.normalizer = {(rules & 2) != 0, (rules & 4) != 0, (rules & 8) != 0, (rules & 16) != 0};
  options.longest_word = 20;
  return {std::move(parts), std::move(options)};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<std::unique_ptr<const stoa::WordPiece>> fixed = [] {
    std::vector<std::unique_ptr<const stoa::WordPiece>> all;
    for (int rules = 0; rules < 32; ++rules) all.push_back(std::make_unique<stoa::WordPiece>(make(rules)));
    return all;
  }();
  const auto [vocabulary, text] = stoa::fuzz::two_parts(data, size);
  stoa::fuzz::check_tokens(*fixed[size % 32], text);
  stoa::fuzz::check_tokens(*fixed[31], text);
  if (vocabulary.empty()) return 0;
  stoa::fuzz::refusing([&, v = vocabulary, t = text] {
    const auto read = stoa::tokenizer_from_vocab_txt(v, "input", {}, stoa::BrokenUtf8::kReplace);
    stoa::fuzz::check_tokens(*read, t);
  });
  return 0;
}
