#include "stoa/data/text/vocabulary_tokenizer.h"

#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/tabular/hash.h"
#include "stoa/data/text/unicode.h"

namespace stoa {

TokenList::TokenList(std::vector<std::string> tokens) : tokens_(std::move(tokens)) {
  ids_.reserve(tokens_.size());
  for (std::size_t i = 0; i < tokens_.size(); ++i)
    if (!tokens_[i].empty()) ids_[tokens_[i]] = static_cast<std::int32_t>(i);
}

std::optional<std::int32_t> TokenList::find(std::string_view token) const {
  const auto found = ids_.find(std::string(token));
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

namespace {

AddedTokenMatcher matcher_of(const std::vector<AddedToken>& added) {
  std::vector<AddedToken> sought;
  std::vector<std::string> contents;
  for (const AddedToken& token : added) {
    if (token.normalized) continue;
    sought.push_back(token);
    contents.push_back(token.content);
  }
  return {std::move(sought), contents};
}

}  // namespace

VocabularyTokenizer::VocabularyTokenizer(TokenizerParts parts)
    : parts_(std::move(parts)),
      matcher_(matcher_of(parts_.added)),
      kinds_(static_cast<std::size_t>(parts_.tokens.size())),
      only_added_(kinds_.size()) {
  for (const AddedToken& token : parts_.added) {
    if (token.id < 0 || token.id >= size())
      throw DataError(format("added token `{}` has id {}, outside of the {} of the vocabulary", token.content,
                             token.id, size()));
    kinds_[static_cast<std::size_t>(token.id)] = token.special ? 2 : 1;
    only_added_[static_cast<std::size_t>(token.id)] = !token.of_model;
  }
  const SpecialTokens& all = parts_.special;
  for (const std::int32_t id : {all.pad, all.unknown, all.cls, all.sep, all.mask, all.begin, all.end})
    if (id < -1 || id >= size())
      throw DataError(format("a special token has id {}, outside of the {} of the vocabulary", id, size()));
}

void VocabularyTokenizer::set_fingerprint(std::span<const std::string> model) {
  Fingerprint print;
  print.add(kind());
  for (const std::string& piece : model) print.add(piece);
  print.add(format("{} tokens", size()));
  for (const std::string& token : parts_.tokens.all()) print.add(token);
  for (const AddedToken& token : parts_.added)
    print.add(format("{}:{}{}{}{}{}:{}", token.id, token.single_word, token.left_strip, token.right_strip,
                     token.normalized, token.of_model, token.content));
  fingerprint_ = print.text().substr(0, 16);
}

std::vector<Token> VocabularyTokenizer::tokens(std::string_view text) const {
  const unicode::ValidText valid(text, parts_.broken);
  std::vector<Token> found;
  const std::string_view whole = valid.view();
  matcher_.split(whole, [&](const AddedTokenMatcher::Part& part) {
    const auto begin = static_cast<std::int32_t>(part.begin), end = static_cast<std::int32_t>(part.end);
    if (part.id >= 0)
      found.push_back({part.id, begin, end});
    else
      cut(whole.substr(part.begin, part.end - part.begin), begin, found);
  });
  valid.restore(found);
  return found;
}

void VocabularyTokenizer::encode(std::string_view text, std::vector<std::int32_t>& ids) const {
  const unicode::ValidText valid(text, parts_.broken);
  const std::string_view whole = valid.view();
  matcher_.split(whole, [&](const AddedTokenMatcher::Part& part) {
    if (part.id >= 0)
      ids.push_back(part.id);
    else
      cut(whole.substr(part.begin, part.end - part.begin), ids);
  });
}

std::string_view VocabularyTokenizer::token(std::int32_t id) const {
  if (id < 0 || id >= size())
    throw DataError(format("token id {} is outside of the vocabulary; ids run from 0 to {}", id, size() - 1));
  return parts_.tokens.text(id);
}

std::vector<std::pair<std::string_view, std::int32_t>> VocabularyTokenizer::model_tokens() const {
  std::vector<std::pair<std::string_view, std::int32_t>> all;
  for (std::int32_t id = 0; id < size(); ++id)
    if (!list().text(id).empty() && only_added_[static_cast<std::size_t>(id)] == 0)
      all.emplace_back(list().text(id), id);
  return all;
}

std::vector<std::int32_t> VocabularyTokenizer::shown(std::span<const std::int32_t> ids,
                                                     bool skip_special) const {
  std::vector<std::int32_t> kept;
  kept.reserve(ids.size());
  for (const std::int32_t id : ids)
    if (!token(id).empty() && !(skip_special && is_special(id))) kept.push_back(id);
  return kept;
}

}  // namespace stoa
