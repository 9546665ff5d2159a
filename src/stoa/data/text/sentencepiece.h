#pragma once

#include <memory>
#include <string>

#include "stoa/data/text/tokenizer_files.h"

namespace stoa {

/// The tokenizer of a SentencePiece model (unigram or BPE), by the library of that name. `model` holds the
/// bytes of a .model file. Control pieces that the text spells out ("<s>") are found, unlike in the library.
/// Throws DataError with `name` where the bytes are no model.
std::shared_ptr<const Tokenizer> tokenizer_from_sentencepiece(std::string model, const std::string& name,
                                                              const TokenizerConfig& config,
                                                              BrokenUtf8 broken);

}  // namespace stoa
