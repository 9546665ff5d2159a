#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "stoa/data/text/vocabulary_tokenizer.h"

namespace stoa {

struct ByteBpeOptions {
  /// Pairs of tokens that are joined, the first before all others, as the vocabulary writes them.
  std::vector<std::pair<std::string, std::string>> merges;
  bool add_prefix_space = false;  ///< text that begins with another character gets a space before it
  bool ignore_merges = false;     ///< a word that is a token is taken whole
  std::string unknown;            ///< for bytes without a token; "" where every byte has one
  bool fuse_unknown = false;      ///< one unknown token for several such bytes in a row
};

/// Byte-level byte-pair encoding, as GPT-2 and RoBERTa have it and equal to Python's `tokenizers`: text is
/// cut by GPT-2's pattern, the bytes of a piece are tokens, and of all neighbours those whose merge comes
/// first are joined until none is left. Bytes that a vocabulary lacks are unknown.
class ByteBpe final : public VocabularyTokenizer {
 public:
  /// Throws DataError for merges of tokens that are not in the vocabulary and for bytes that have no token
  /// where there is no unknown one.
  ByteBpe(TokenizerParts parts, ByteBpeOptions options);

  std::string decode(std::span<const std::int32_t> ids, bool skip_special) const override;
  bool continues_word(std::int32_t id) const override;
  std::string kind() const override { return "bpe"; }
  void save(const std::filesystem::path& folder) const override;
  const ByteBpeOptions& options() const { return options_; }

 private:
  struct Merge {
    std::uint64_t pair = kNoPair;  // left << 32 | right
    std::int32_t rank = 0, id = 0;
  };
  struct Symbol {
    std::int32_t id, begin, end;  // bytes of the word
  };
  class Cache;
  static constexpr std::uint64_t kNoPair = ~std::uint64_t{0};

  void index_bytes();
  void index_merges();
  const Merge* merge_of(std::int32_t left, std::int32_t right) const;
  void start(std::string_view word, std::vector<Symbol>& symbols) const;
  void join_few(std::vector<Symbol>& symbols) const;
  void join_many(std::vector<Symbol>& symbols) const;
  void split_word(std::string_view word, std::vector<Symbol>& symbols) const;
  void put_ids(std::string_view word, std::vector<Symbol>& scratch, std::vector<std::int32_t>& ids) const;
  template <class Work>
  void for_words(std::string_view text, const Work& work) const;
  void cut(std::string_view text, std::int32_t offset, std::vector<Token>& tokens) const override;
  void cut(std::string_view text, std::vector<std::int32_t>& ids) const override;

  ByteBpeOptions options_;
  std::uint32_t serial_;                      // tells tokenizers apart in the cache of a thread
  std::array<std::int32_t, 256> byte_ids_{};  // -1 where a byte has none
  std::int32_t unknown_ = -1;
  std::vector<Merge> merges_;     // open addressing
  AddedTokenMatcher normalized_;  // added tokens to be found in normalised text, which is the text itself
};

}  // namespace stoa
