#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "stoa/data/text/added_tokens.h"
#include "stoa/data/text/tokenizer.h"

namespace stoa {

/// The tokens of a tokenizer in the order of their ids, and the way back. An id may have no token (""): a
/// vocab.txt may write a token twice, and the later line counts.
class TokenList {
 public:
  TokenList() = default;
  explicit TokenList(std::vector<std::string> tokens);

  std::int64_t size() const { return static_cast<std::int64_t>(tokens_.size()); }
  const std::string& text(std::int32_t id) const { return tokens_[static_cast<std::size_t>(id)]; }
  std::optional<std::int32_t> find(std::string_view token) const;
  const std::vector<std::string>& all() const { return tokens_; }

 private:
  std::vector<std::string> tokens_;
  std::unordered_map<std::string, std::int32_t> ids_;
};

/// What every tokenizer has, whatever model cuts its text.
struct TokenizerParts {
  TokenList tokens;
  std::vector<AddedToken> added;  ///< their ids are within `tokens`
  SpecialTokens special;
  BrokenUtf8 broken = BrokenUtf8::kReplace;
};

/// A tokenizer with a list of tokens and added tokens: all but the model.
class VocabularyTokenizer : public Tokenizer {
 public:
  std::vector<Token> tokens(std::string_view text) const final;
  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<std::int32_t>& ids) const final;
  std::int64_t size() const final { return parts_.tokens.size(); }
  std::string_view token(std::int32_t id) const final;
  std::optional<std::int32_t> find(std::string_view token) const final { return parts_.tokens.find(token); }
  const SpecialTokens& special() const final { return parts_.special; }
  std::string fingerprint() const final { return fingerprint_; }
  /// The added tokens, with all that tokenizer.json says of them.
  const std::vector<AddedToken>& added() const { return parts_.added; }
  /// Tokens of the model's own vocabulary with their ids, which rise.
  std::vector<std::pair<std::string_view, std::int32_t>> model_tokens() const;

 protected:
  /// Throws DataError unless added tokens and special ids lie within the list.
  explicit VocabularyTokenizer(TokenizerParts parts);

  /// The tokens of a valid text that begins `offset` bytes into the whole, appended.
  virtual void cut(std::string_view text, std::int32_t offset, std::vector<Token>& tokens) const = 0;
  virtual void cut(std::string_view text, std::vector<std::int32_t>& ids) const = 0;

  const TokenList& list() const { return parts_.tokens; }
  bool is_added(std::int32_t id) const { return kinds_[static_cast<std::size_t>(id)] != 0; }
  bool is_only_added(std::int32_t id) const { return only_added_[static_cast<std::size_t>(id)] != 0; }
  bool is_special(std::int32_t id) const { return kinds_[static_cast<std::size_t>(id)] == 2; }
  /// The tokens to decode: those left when special ones are skipped and ids without a token are passed over.
  std::vector<std::int32_t> shown(std::span<const std::int32_t> ids, bool skip_special) const;
  /// To be called at the end of construction with all of the model that decides ids.
  void set_fingerprint(std::span<const std::string> model);

 private:
  TokenizerParts parts_;
  AddedTokenMatcher matcher_;
  std::vector<char> kinds_;       // by id: 1 added, 2 added and special
  std::vector<char> only_added_;  // by id: the model's vocabulary lacks it
  std::string fingerprint_;
};

}  // namespace stoa
