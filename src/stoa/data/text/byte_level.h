#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace stoa::byte_level {

/// The character that GPT-2's vocabularies write for a byte: printable ones stand for themselves, the others
/// are code points from 256 on ("Ġ" is a space).
char32_t character(std::uint8_t byte);
/// The byte that a character stands for, or -1.
int byte(char32_t character);
/// Bytes as such characters.
std::string written(std::string_view bytes);
/// The bytes that a token stands for: itself where it has a character that stands for none.
std::string read(std::string_view token);

/// Whether a token that stands for these bytes goes on with a word: it begins with neither white space nor
/// ASCII punctuation.
bool continues_word(std::string_view bytes);

}  // namespace stoa::byte_level
