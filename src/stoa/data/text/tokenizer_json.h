#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "stoa/data/text/tokenizer_files.h"

namespace stoa {

/// The tokenizer of a tokenizer.json: WordPiece with BERT's normaliser and word boundaries, or byte-level
/// BPE. Truncation, padding and post-processors are not used, as sequences are put together elsewhere; any
/// other part that is not supported is refused by name. Throws DataError with `name` and what is wrong.
std::shared_ptr<const Tokenizer> tokenizer_from_json(const SortedJson& json, const std::string& name,
                                                     const TokenizerConfig& config, BrokenUtf8 broken);

/// WordPiece of the lines of a vocab.txt. Lower-cases unless the configuration says otherwise.
std::shared_ptr<const Tokenizer> tokenizer_from_vocab_txt(std::string_view text, const std::string& name,
                                                          const TokenizerConfig& config, BrokenUtf8 broken);

/// Byte-level BPE of a vocab.json and the lines of a merges.txt.
std::shared_ptr<const Tokenizer> tokenizer_from_merges(const SortedJson& vocabulary, std::string_view merges,
                                                       const std::string& name, const TokenizerConfig& config,
                                                       BrokenUtf8 broken);

}  // namespace stoa
