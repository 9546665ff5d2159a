#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "stoa/data/text/bert_normalizer.h"
#include "stoa/data/text/byte_trie.h"
#include "stoa/data/text/vocabulary_tokenizer.h"

namespace stoa {

struct WordPieceOptions {
  BertNormalizerOptions normalizer;
  std::string unknown = "[UNK]";    ///< what a word becomes that the vocabulary cannot spell
  std::string prefix = "##";        ///< of the tokens that go on with a word
  std::int64_t longest_word = 100;  ///< in characters; what is longer is unknown
  bool decoder = true;              ///< decoding joins tokens to words; else there is a space between all
  bool clean_up = true;             ///< decoding joins punctuation to the words beside it
};

/// WordPiece behind BERT's normalisation and word boundaries, equal to Python's `tokenizers`: words end at
/// white space, punctuation characters are words of their own, and a word becomes the longest tokens that it
/// begins with, one after the other.
class WordPiece final : public VocabularyTokenizer {
 public:
  /// Throws DataError where the vocabulary lacks the unknown token.
  WordPiece(TokenizerParts parts, WordPieceOptions options);
  ~WordPiece() override;

  std::string decode(std::span<const std::int32_t> ids, bool skip_special) const override;
  bool continues_word(std::int32_t id) const override;
  std::string kind() const override { return "wordpiece"; }
  void save(const std::filesystem::path& folder) const override;
  const WordPieceOptions& options() const { return options_; }

 private:
  template <class Out>
  class Cutter;
  template <class Out>
  void cut_into(std::string_view text, std::int32_t offset, Out& out) const;
  template <class Out>
  void cut_normalized(std::string_view text, std::int32_t offset, Out& out) const;
  void cut(std::string_view text, std::int32_t offset, std::vector<Token>& tokens) const override;
  void cut(std::string_view text, std::vector<std::int32_t>& ids) const override;

  WordPieceOptions options_;
  BertNormalizer normalizer_;
  ByteTrie trie_;
  std::int32_t unknown_ = -1,
               inside_ = ByteTrie::kNone;  // inside_: where tokens that go on with a word begin
  std::size_t longest_ = 0;
  std::unordered_map<std::int32_t, std::string> shown_;  // added tokens that decoding writes normalised
  AddedTokenMatcher normalized_;  // added tokens that are looked for in normalised text
};

}  // namespace stoa
