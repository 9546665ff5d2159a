#pragma once

#include <cstddef>
#include <string_view>

namespace stoa {

/// The end of the piece that begins at `begin`, by the pattern with which GPT-2 cuts text before byte-pair
/// encoding: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
/// `text` is valid UTF-8, `begin` before its end and at a character.
std::size_t gpt2_piece_end(std::string_view text, std::size_t begin);

}  // namespace stoa
