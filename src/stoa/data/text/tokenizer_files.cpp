#include "stoa/data/text/tokenizer_files.h"

#include <string_view>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"

namespace stoa {
namespace {

using namespace std::string_view_literals;

/// A role: its entry in the configuration, and what its token is usually called.
struct Role {
  std::string_view key;
  std::int32_t SpecialTokens::*id;
  std::vector<std::string_view> names;
};

const std::vector<Role>& roles() {
  static const std::vector<Role> all{
      {"pad_token", &SpecialTokens::pad, {"[PAD]", "<pad>"}},
      {"unk_token", &SpecialTokens::unknown, {"[UNK]", "<unk>"}},
      {"cls_token", &SpecialTokens::cls, {"[CLS]", "<cls>"}},
      {"sep_token", &SpecialTokens::sep, {"[SEP]", "<sep>"}},
      {"mask_token", &SpecialTokens::mask, {"[MASK]", "<mask>"}},
      {"bos_token", &SpecialTokens::begin, {"[BEGIN]", "<s>", "<bos>", "<|endoftext|>", "<|begin_of_text|>"}},
      {"eos_token", &SpecialTokens::end, {"[END]", "</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>"}}};
  return all;
}

/// A token that is named by its text alone or with its properties.
AddedToken named_token(const SortedJson& json, const std::string& place) {
  if (json.is_object()) return read_added_token(json, place);
  if (!json.is_string()) throw DataError(format("{}: not the text of a token", place));
  AddedToken token{.content = json.get<std::string>()};
  token.left_strip = token.content == "<mask>";  // RoBERTa's takes the space before it
  return token;
}

void read_tokens(const SortedJson& json, const std::string& file, TokenizerConfig& config) {
  for (std::size_t i = 0; i < roles().size(); ++i)
    if (const SortedJson* value = json_fields::find(json, roles()[i].key, file))
      config.roles[i] = named_token(*value, format("{}: `{}`", file, roles()[i].key));
  if (const SortedJson* more = json_fields::find(json, "additional_special_tokens", file)) {
    if (!more->is_array()) throw DataError(format("{}: `additional_special_tokens` is not a list", file));
    for (const SortedJson& token : *more)
      config.others.push_back(named_token(token, format("{}: `additional_special_tokens`", file)));
  }
}

std::optional<bool> read_truth(const SortedJson& json, std::string_view key, const std::string& file) {
  if (json_fields::find(json, key, file) == nullptr) return std::nullopt;
  return json_fields::truth(json, key, false, file);
}

/// Properties of all added tokens by id, newer than those that are written beside the roles.
void read_decoder(const SortedJson& json, const std::string& file, TokenizerConfig& config) {
  const SortedJson* all = json_fields::find(json, "added_tokens_decoder", file);
  if (all == nullptr) return;
  if (!all->is_object()) throw DataError(format("{}: `added_tokens_decoder` is not an object", file));
  for (const auto& [key, value] : all->items()) {
    AddedToken token = read_added_token(value, format("{}: `added_tokens_decoder` {}", file, key));
    if (key.empty() || key.size() > 9 || key.find_first_not_of("0123456789") != std::string::npos)
      throw DataError(format("{}: `added_tokens_decoder` has `{}`, which is no id", file, key));
    token.id = std::stoi(key);
    for (auto& role : config.roles)
      if (role && role->content == token.content) role = token;
    std::erase_if(config.others, [&](const AddedToken& other) { return other.content == token.content; });
    config.others.push_back(std::move(token));
  }
}

}  // namespace

AddedToken read_added_token(const SortedJson& json, const std::string& place) {
  AddedToken token;
  token.content = json_fields::need(json, "content", place).is_string()
                      ? json_fields::text(json, "content", "", place)
                      : throw DataError(format("{}: `content` is not a text", place));
  token.special = json_fields::truth(json, "special", true, place);
  token.single_word = json_fields::truth(json, "single_word", false, place);
  token.left_strip = json_fields::truth(json, "lstrip", false, place);
  token.right_strip = json_fields::truth(json, "rstrip", false, place);
  token.normalized = json_fields::truth(json, "normalized", !token.special, place);
  return token;
}

Json written_added_token(const AddedToken& token) {
  return {{"content", token.content},    {"single_word", token.single_word}, {"lstrip", token.left_strip},
          {"rstrip", token.right_strip}, {"normalized", token.normalized},   {"special", token.special}};
}

TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder) {
  TokenizerConfig config;
  for (const auto name : {"special_tokens_map.json"sv, "tokenizer_config.json"sv}) {
    const auto file = folder / name;
    if (!std::filesystem::exists(file)) continue;
    const SortedJson json = parse_sorted_json(read_file(file), file.string());
    if (name == "special_tokens_map.json"sv) {
      read_tokens(json, file.string(), config);
      continue;
    }
    TokenizerConfig mine;
    read_tokens(json, file.string(), mine);
    for (std::size_t i = 0; i < config.roles.size(); ++i)
      // the text alone must not hide properties that the other file gives it
      if (mine.roles[i] && !(config.roles[i] && config.roles[i]->content == mine.roles[i]->content))
        config.roles[i] = mine.roles[i];
    if (config.others.empty()) config.others = mine.others;
    read_decoder(json, file.string(), config);
    config.lowercase = read_truth(json, "do_lower_case", file.string());
    config.strip_accents = read_truth(json, "strip_accents", file.string());
    config.ideographs = read_truth(json, "tokenize_chinese_chars", file.string());
    config.add_prefix_space = read_truth(json, "add_prefix_space", file.string());
  }
  return config;
}

SpecialTokens special_tokens(const TokenizerConfig& config, const TokenList& tokens) {
  SpecialTokens ids;
  for (std::size_t i = 0; i < roles().size(); ++i) {
    const Role& role = roles()[i];
    if (config.roles[i]) {
      const auto id = tokens.find(config.roles[i]->content);
      if (!id)
        throw DataError(format("the configuration names `{}` as its {}, which the vocabulary lacks",
                               config.roles[i]->content, role.key));
      ids.*role.id = *id;
      continue;
    }
    for (const std::string_view name : role.names)
      if (const auto id = tokens.find(name); id && ids.*role.id < 0) ids.*role.id = *id;
  }
  // RoBERTa's kin name no others
  if (ids.mask >= 0 && ids.cls < 0) ids.cls = tokens.find("<s>").value_or(-1);
  if (ids.mask >= 0 && ids.sep < 0) ids.sep = tokens.find("</s>").value_or(-1);
  return ids;
}

Json written_roles(const Tokenizer& tokenizer) {
  Json json = Json::object();
  for (const Role& role : roles())
    if (const std::int32_t id = tokenizer.special().*role.id; id >= 0)
      json[std::string(role.key)] = tokenizer.token(id);
  return json;
}

}  // namespace stoa
