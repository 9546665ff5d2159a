#include "stoa/data/text/byte_tokenizer.h"

#include <array>

#include "stoa/data/text/byte_level.h"
#include "stoa/data/text/tokenizer_files.h"
#include "stoa/data/text/unicode.h"

namespace stoa {
namespace {

TokenizerParts byte_parts(BrokenUtf8 broken) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte)
    tokens.push_back(byte_level::written(std::string(1, static_cast<char>(byte))));
  TokenizerParts parts;
  for (const char* name : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BEGIN]", "[END]"}) {
    parts.added.push_back(
        {.content = name, .id = static_cast<std::int32_t>(tokens.size()), .of_model = false});
    tokens.push_back(name);
  }
  parts.tokens = TokenList(std::move(tokens));
  parts.special = {.pad = 256, .unknown = 257, .cls = 258, .sep = 259, .mask = 260, .begin = 261, .end = 262};
  parts.broken = broken;
  return parts;
}

}  // namespace

ByteTokenizer::ByteTokenizer(BrokenUtf8 broken) : VocabularyTokenizer(byte_parts(broken)) {
  set_fingerprint({});
}

void ByteTokenizer::cut(std::string_view text, std::int32_t offset, std::vector<Token>& tokens) const {
  // like those of byte-level BPE, the place of a byte is that of its whole character
  for (const char *at = text.data(), *end = at + text.size(); at < end;) {
    const char* const begin = at;
    unicode::next(at);
    const auto place = offset + static_cast<std::int32_t>(begin - text.data());
    for (const char* byte = begin; byte < at; ++byte)
      tokens.push_back(
          {static_cast<std::uint8_t>(*byte), place, place + static_cast<std::int32_t>(at - begin)});
  }
}

void ByteTokenizer::cut(std::string_view text, std::vector<std::int32_t>& ids) const {
  for (const char byte : text) ids.push_back(static_cast<std::uint8_t>(byte));
}

std::string ByteTokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const std::int32_t id : shown(ids, skip_special))
    if (id < 256)
      bytes.push_back(static_cast<char>(id));
    else
      bytes += token(id);
  return unicode::repaired(bytes);
}

bool ByteTokenizer::continues_word(std::int32_t id) const {
  token(id);  // refuses one that is none
  return id < 256 && byte_level::continues_word(std::string(1, static_cast<char>(id)));
}

void ByteTokenizer::save(const std::filesystem::path& folder) const {
  save_bytes(*this, folder);
}

}  // namespace stoa
