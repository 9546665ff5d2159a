#include <algorithm>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/text/byte_bpe.h"
#include "stoa/data/text/tokenizer_json.h"
#include "stoa/data/text/tokenizer_parts.h"
#include "stoa/data/text/unicode.h"
#include "stoa/data/text/wordpiece.h"

namespace stoa {
namespace {

/// The next line of `rest`, without its end.
std::string_view take_line(std::string_view& rest) {
  const std::size_t end = std::min(rest.find('\n'), rest.size());
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return line;
}

std::string_view without_space_behind(std::string_view line) {
  while (!line.empty()) {
    const char32_t last = unicode::last_before(line.data() + line.size());
    if ((unicode::classes(last) & unicode::kSpace) == 0) break;
    char bytes[4];
    line.remove_suffix(static_cast<std::size_t>(unicode::put(last, bytes)));
  }
  return line;
}

void need_utf8(std::string_view line, const std::string& name, std::size_t number) {
  if (unicode::valid_prefix(line) != line.size())
    throw DataError(format("{}: line {} is not UTF-8", name, number));
}

/// Tokens with a role and other added ones, each once.
std::vector<AddedToken> added_of(const TokenizerConfig& config) {
  std::vector<AddedToken> added;
  const auto add = [&](const AddedToken& token) {
    if (std::ranges::find(added, token.content, &AddedToken::content) == added.end()) added.push_back(token);
  };
  for (const AddedToken& token : config.others) add(token);
  for (const auto& role : config.roles)
    if (role) add(*role);
  // those with a number come to stand at it, others behind
  std::ranges::stable_sort(added, {}, [](const AddedToken& token) {
    return token.id < 0 ? std::int64_t{1} << 32 : std::int64_t{token.id};
  });
  return added;
}

/// Names the roles that the configuration leaves open by usual names that are tokens.
void name_roles(TokenizerConfig& config, const TokenList& tokens, const std::array<const char*, 7>& usual) {
  for (std::size_t i = 0; i < usual.size(); ++i)
    if (!config.roles[i] && usual[i][0] != '\0' && tokens.find(usual[i]))
      config.roles[i] = AddedToken{.content = usual[i], .left_strip = std::string_view(usual[i]) == "<mask>"};
}

}  // namespace

std::shared_ptr<const Tokenizer> tokenizer_from_vocab_txt(std::string_view text, const std::string& name,
                                                          const TokenizerConfig& config, BrokenUtf8 broken) {
  std::vector<std::string> tokens;
  std::unordered_map<std::string_view, std::size_t> last;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view line = take_line(rest);
    need_utf8(line, name, tokens.size() + 1);
    const std::string_view token = without_space_behind(line);
    if (const auto [found, fresh] = last.try_emplace(token, tokens.size()); !fresh) {
      tokens[found->second].clear();  // the later line counts
      found->second = tokens.size();
    }
    tokens.emplace_back(token);
  }
  if (tokens.empty()) throw DataError(format("{}: an empty vocabulary", name));
  TokenizerConfig all = config;
  name_roles(all, TokenList(tokens), {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "", ""});
  WordPieceOptions options;
  options.normalizer.lowercase = config.lowercase.value_or(true);
  options.normalizer.strip_accents = config.strip_accents.value_or(options.normalizer.lowercase);
  options.normalizer.ideographs = config.ideographs.value_or(true);
  if (all.roles[1]) options.unknown = all.roles[1]->content;
  auto parts = make_tokenizer_parts(std::move(tokens), added_of(all), name, all, broken);
  return naming_file(name, [&] { return std::make_shared<WordPiece>(std::move(parts), std::move(options)); });
}

std::shared_ptr<const Tokenizer> tokenizer_from_merges(const SortedJson& vocabulary, std::string_view merges,
                                                       const std::string& name, const TokenizerConfig& config,
                                                       BrokenUtf8 broken) {
  ByteBpeOptions options;
  options.add_prefix_space = config.add_prefix_space.value_or(false);
  std::size_t number = 0;
  for (std::string_view rest = merges; !rest.empty();) {
    std::string_view line = take_line(rest);
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with("#version")) continue;
    need_utf8(line, name, number);
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos)
      throw DataError(format("{}: line {} of the merges is not two tokens", name, number));
    options.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  std::vector<std::string> tokens = read_token_ids(vocabulary, name);
  TokenizerConfig all = config;
  const TokenList list(tokens);
  name_roles(all, list, {"<pad>", "<unk>", "", "", "<mask>", "<s>", "</s>"});
  name_roles(all, list, {"", "", "", "", "", "<|endoftext|>", "<|endoftext|>"});
  auto parts = make_tokenizer_parts(std::move(tokens), added_of(all), name, all, broken);
  return naming_file(name, [&] { return std::make_shared<ByteBpe>(std::move(parts), std::move(options)); });
}

}  // namespace stoa
