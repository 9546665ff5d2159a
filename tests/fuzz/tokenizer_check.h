#pragma once

#include "fuzz/fuzz.h"
#include "stoa/data/text/tokenizer.h"
#include "stoa/data/text/unicode.h"

// What the fuzz targets of tokenizers hold every one of them to.
namespace stoa::fuzz {

/// Ids are those of the vocabulary, places lie in the text, both ways to encode agree, decoded text is UTF-8.
/// Returns what the text decodes to.
inline std::string check_tokens(const Tokenizer& tokenizer, std::string_view text) {
  std::string decoded;
  refusing([&] {
    const std::vector<Token> tokens = tokenizer.tokens(text);
    const std::vector<std::int32_t> ids = tokenizer.encode(text);
    require(tokens.size() == ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) {
      require(ids[i] == tokens[i].id && ids[i] >= 0 && ids[i] < tokenizer.size());
      require(tokens[i].begin >= 0 && tokens[i].begin <= tokens[i].end &&
              tokens[i].end <= static_cast<std::int32_t>(text.size()));
      tokenizer.continues_word(ids[i]);
    }
    decoded = tokenizer.decode(ids, false);
    require(unicode::valid_prefix(decoded) == decoded.size());
    tokenizer.decode(ids, true);
  });
  return decoded;
}

/// The two parts of an input, before and behind its first zero byte.
inline std::pair<std::string_view, std::string_view> two_parts(const std::uint8_t* data, std::size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const std::size_t zero = std::min(all.find('\0'), all.size());
  return {all.substr(0, zero), all.substr(std::min(zero + 1, all.size()))};
}

}  // namespace stoa::fuzz
