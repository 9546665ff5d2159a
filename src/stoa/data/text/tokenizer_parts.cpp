#include "stoa/data/text/tokenizer_parts.h"

#include <set>
#include <utility>

namespace stoa {

std::vector<std::string> read_token_ids(const SortedJson& json, const std::string& place) {
  if (!json.is_object())
    throw DataError(format("{}: the vocabulary is not an object of tokens and ids", place));
  const std::size_t most = 2 * json.size() + 1000;
  std::vector<std::string> tokens;
  for (const auto& [text, value] : json.items()) {
    const auto id = static_cast<std::size_t>(json_fields::id(value, place));
    if (id >= most)
      throw DataError(format("{}: token `{}` has id {}, far beyond the {} tokens there are", place, text, id,
                             json.size()));
    if (id >= tokens.size()) tokens.resize(id + 1);
    if (text.empty()) continue;
    if (!tokens[id].empty())
      throw DataError(format("{}: tokens `{}` and `{}` share id {}", place, tokens[id], text, id));
    tokens[id] = text;
  }
  return tokens;
}

namespace {

/// Puts added tokens into the list of the model's tokens: those that it has must have its ids, others come
/// behind or where the list has none.
void add_tokens(std::vector<AddedToken> added, std::vector<std::string>& tokens, const std::string& place,
                std::vector<AddedToken>& out) {
  const TokenList model(tokens);
  std::set<std::string> seen;
  for (AddedToken& token : added) {
    if (token.content.empty()) continue;
    if (!seen.insert(token.content).second)
      throw DataError(format("{}: added token `{}` is there twice", place, token.content));
    const auto id = model.find(token.content);
    if (token.id < 0) token.id = id.value_or(static_cast<std::int32_t>(tokens.size()));
    if (id && *id != token.id)
      throw DataError(format("{}: added token `{}` has id {}, in the vocabulary {}", place, token.content,
                             token.id, *id));
    token.of_model = id.has_value();
    const auto at = static_cast<std::size_t>(token.id);
    if (at >= tokens.size() + added.size() + 1000)
      throw DataError(format("{}: added token `{}` has id {}, far beyond the {} tokens there are", place,
                             token.content, token.id, tokens.size()));
    if (at >= tokens.size()) tokens.resize(at + 1);
    if (!id && !tokens[at].empty())
      throw DataError(format("{}: added token `{}` has id {}, which is that of `{}`", place, token.content,
                             token.id, tokens[at]));
    tokens[at] = token.content;
    out.push_back(std::move(token));
  }
}

}  // namespace

TokenizerParts make_tokenizer_parts(std::vector<std::string> tokens, std::vector<AddedToken> added,
                                    const std::string& name, const TokenizerConfig& config,
                                    BrokenUtf8 broken) {
  TokenizerParts parts;
  parts.broken = broken;
  add_tokens(std::move(added), tokens, name, parts.added);
  parts.tokens = TokenList(std::move(tokens));
  try {
    parts.special = special_tokens(config, parts.tokens);
  } catch (const DataError& error) {
    throw DataError(format("{}: {}", name, error.what()));
  }
  return parts;
}

}  // namespace stoa
