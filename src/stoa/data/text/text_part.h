#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "stoa/data/text/documents.h"
#include "stoa/data/text/prepared_text.h"
#include "stoa/data/text/token_file.h"

namespace stoa {

/// What is known of a part: the tokens of one chunk of text, kept while text is prepared.
struct TextPartHead {
  std::uint64_t file = 0;        ///< place of the chunk's file in the list of files
  std::uint64_t text_bytes = 0;  ///< of the chunk
  std::int64_t tokens = 0, sentences = 0, breaks = 0;
};

std::string text_part_name(std::int64_t chunk);

/// Writes a part, whole or not at all.
TextPartHead write_text_part(const std::filesystem::path& file, const TextChunk& chunk,
                             const TokenizedText& text, TokenType type);

/// The head of a part where it is there, whole, and of this chunk.
std::optional<TextPartHead> whole_text_part(const std::filesystem::path& file, const TextChunk& chunk,
                                            TokenType type);

/// Joins the parts of `folder` to PREFIX.bin and PREFIX.idx, and notes the counts in `made`. Throws DataError
/// where there is no sentence at all, Interrupted.
void join_text_parts(const std::filesystem::path& folder, std::span<const TextPartHead> parts, TokenType type,
                     const std::filesystem::path& prefix, PreparedText& made);

}  // namespace stoa
