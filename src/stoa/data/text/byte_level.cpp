#include "stoa/data/text/byte_level.h"

#include <array>

#include "stoa/data/text/unicode.h"

namespace stoa::byte_level {
namespace {

constexpr bool is_printable(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

constexpr std::array<char32_t, 256> kCharacters = [] {
  std::array<char32_t, 256> all{};
  char32_t next = 256;
  for (int byte = 0; byte < 256; ++byte)
    all[static_cast<std::size_t>(byte)] = is_printable(byte) ? static_cast<char32_t>(byte) : next++;
  return all;
}();

constexpr std::array<std::int16_t, 324> kBytes = [] {
  std::array<std::int16_t, 324> all{};
  for (auto& byte : all) byte = -1;
  for (std::size_t byte = 0; byte < 256; ++byte) all[kCharacters[byte]] = static_cast<std::int16_t>(byte);
  return all;
}();

}  // namespace

char32_t character(std::uint8_t byte) {
  return kCharacters[byte];
}

int byte(char32_t character) {
  return character < kBytes.size() ? kBytes[character] : -1;
}

std::string written(std::string_view bytes) {
  std::string text;
  for (const char one : bytes) unicode::append(character(static_cast<std::uint8_t>(one)), text);
  return text;
}

std::string read(std::string_view token) {
  std::string bytes;
  for (const char *at = token.data(), *end = at + token.size(); at < end;) {
    const int value = byte(unicode::next(at));
    if (value < 0) return std::string(token);
    bytes.push_back(static_cast<char>(value));
  }
  return bytes;
}

bool continues_word(std::string_view bytes) {
  if (bytes.empty()) return false;
  const auto first = static_cast<std::uint8_t>(bytes[0]);
  return first >= 0x80 || (unicode::classes(first) & (unicode::kLetter | unicode::kNumber)) != 0;
}

}  // namespace stoa::byte_level
