#pragma once

#include <string>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/text/tokenizer_files.h"

namespace stoa {

/// {"token": id, ...} as a list by id. Ids may be left out, but not so many that a few bytes ask for much
/// memory. Throws DataError with `place`.
std::vector<std::string> read_token_ids(const SortedJson& json, const std::string& place);

/// What a tokenizer has besides its model. Added tokens that the model's list has take its ids, others come
/// behind it or where it has none. Throws DataError with `name` where ids contradict each other.
TokenizerParts make_tokenizer_parts(std::vector<std::string> tokens, std::vector<AddedToken> added,
                                    const std::string& name, const TokenizerConfig& config,
                                    BrokenUtf8 broken);

/// What `work` returns, the construction of a model, whose errors know nothing of files.
template <class Work>
auto naming_file(const std::string& name, const Work& work) {
  try {
    return work();
  } catch (const DataError& error) {
    throw DataError(format("{}: {}", name, error.what()));
  }
}

}  // namespace stoa
