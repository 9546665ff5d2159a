#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "stoa/base/json.h"
#include "stoa/data/text/json_fields.h"
#include "stoa/data/text/vocabulary_tokenizer.h"

namespace stoa {

class WordPiece;
class ByteBpe;
class ByteTokenizer;

/// What tokenizer_config.json and special_tokens_map.json say beside a vocabulary.
struct TokenizerConfig {
  /// Tokens with a role in the order of SpecialTokens: pad, unknown, cls, sep, mask, begin, end. Without an
  /// id.
  std::array<std::optional<AddedToken>, 7> roles;
  std::vector<AddedToken> others;  ///< added tokens without a role
  std::optional<bool> lowercase, strip_accents, ideographs, add_prefix_space;
};

/// Reads the two files where they are. Throws DataError naming file and entry.
TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder);

/// Ids of the roles: as the configuration names them, else tokens of usual names that are in the list
/// ("[CLS]",
/// "<s>", "<|endoftext|>"). Throws DataError where the configuration names one that is not in the list.
SpecialTokens special_tokens(const TokenizerConfig& config, const TokenList& tokens);

/// An added token as tokenizer.json and the files beside it write it: {"content": ..., "lstrip": ...}.
AddedToken read_added_token(const SortedJson& json, const std::string& place);
Json written_added_token(const AddedToken& token);

/// The roles of a tokenizer as those files write them: {"pad_token": "[PAD]", ...}.
Json written_roles(const Tokenizer& tokenizer);

/// Write vocab.txt, tokenizer.json and tokenizer_config.json, or the latter two.
void save_wordpiece(const WordPiece& tokenizer, const std::filesystem::path& folder);
void save_bpe(const ByteBpe& tokenizer, const std::filesystem::path& folder);
void save_bytes(const ByteTokenizer& tokenizer, const std::filesystem::path& folder);

}  // namespace stoa
