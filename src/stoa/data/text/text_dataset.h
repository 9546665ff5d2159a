#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "stoa/data/text/options.h"
#include "stoa/data/text/token_file.h"
#include "stoa/data/text/tokenizer.h"

namespace stoa {

/// Sentences [begin, end) of a token file.
struct SentenceRange {
  std::int64_t begin = 0, end = 0;
};

/// Some documents of a token file, in its order.
struct TextDocuments {
  std::shared_ptr<const TokenFile> file;
  std::vector<SentenceRange> documents;  ///< each with a token or more

  /// Tokens before a document's first sentence and behind its last: its place in the file.
  std::int64_t token_begin(std::size_t document) const {
    return file->index().sentence_begin(documents[document].begin);
  }
  std::int64_t token_end(std::size_t document) const {
    return file->index().sentence_begin(documents[document].end);
  }
  std::int64_t sentences() const;
  std::int64_t tokens() const;
};

/// A corpus for training and one for evaluation, of one vocabulary.
struct TextDataset {
  std::shared_ptr<const Tokenizer> tokenizer;
  TextDocuments train, eval;
};

/// Opens what the options name: a folder made by `stoa data prepare text`, a Megatron pair, or text, which is
/// tokenised into memory. `tokenizer`, where given, stands in for the one that the options name. Throws
/// DataError for places that are not there, hold no text, are damaged or of another vocabulary; ConfigError.
std::shared_ptr<const TextDataset> open_text_dataset(const TextDataOptions& options,
                                                     std::shared_ptr<const Tokenizer> tokenizer = nullptr);

/// Tokenises files and folders into memory, on all cores.
std::shared_ptr<const TokenFile> tokenize_in_memory(const std::vector<std::filesystem::path>& places,
                                                    const TextRules& rules, const Tokenizer& tokenizer);

/// All documents of a token file that have tokens.
TextDocuments all_documents(std::shared_ptr<const TokenFile> file);

/// Moves a share of the documents, chosen by a hash of their numbers and at least one, from `train` to the
/// result; of a single document the last sentences. Throws DataError where there is only one sentence.
TextDocuments hold_out(TextDocuments& train, double share);

}  // namespace stoa
