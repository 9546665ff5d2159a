#include "stoa/base/files.h"
#include "stoa/data/text/byte_bpe.h"
#include "stoa/data/text/byte_level.h"
#include "stoa/data/text/byte_tokenizer.h"
#include "stoa/data/text/tokenizer_files.h"
#include "stoa/data/text/wordpiece.h"

namespace stoa {
namespace {

Json vocabulary_of(const VocabularyTokenizer& tokenizer) {
  Json vocabulary = Json::object();
  // keys are distinct: an object that keeps its order would look through all of them for each
  auto& entries = vocabulary.get_ref<Json::object_t&>();
  for (const auto& [text, id] : tokenizer.model_tokens())
    entries.Container::emplace_back(std::string(text), id);
  return vocabulary;
}

Json added_tokens_of(const VocabularyTokenizer& tokenizer) {
  Json all = Json::array();
  for (const AddedToken& token : tokenizer.added()) {
    Json entry{{"id", token.id}};
    entry.update(written_added_token(token));
    all.push_back(std::move(entry));
  }
  return all;
}

/// tokenizer.json but for what depends on the model.
Json frame(const VocabularyTokenizer& tokenizer) {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added_tokens_of(tokenizer)}};
}

/// [CLS] A [SEP] B [SEP] for `transformers`.
Json sequence_template(const Tokenizer& tokenizer) {
  const SpecialTokens& special = tokenizer.special();
  if (special.cls < 0 || special.sep < 0) return nullptr;
  const std::string cls(tokenizer.token(special.cls)), sep(tokenizer.token(special.sep));
  const auto token = [](const std::string& id, int type) {
    return Json{{"SpecialToken", {{"id", id}, {"type_id", type}}}};
  };
  const auto text = [](const char* id, int type) {
    return Json{{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  const auto entry = [](const std::string& name, std::int32_t id) {
    return Json{{"id", name}, {"ids", Json::array({id})}, {"tokens", Json::array({name})}};
  };
  return {{"type", "TemplateProcessing"},
          {"single", Json::array({token(cls, 0), text("A", 0), token(sep, 0)})},
          {"pair", Json::array({token(cls, 0), text("A", 0), token(sep, 0), text("B", 1), token(sep, 1)})},
          {"special_tokens", {{cls, entry(cls, special.cls)}, {sep, entry(sep, special.sep)}}}};
}

void write_json(const Json& json, const std::filesystem::path& file) {
  write_file_atomically(file, json.dump(2) + "\n");
}

Json configuration(const VocabularyTokenizer& tokenizer, const char* tokenizer_class) {
  Json json{{"tokenizer_class", tokenizer_class}};
  json.update(written_roles(tokenizer));
  Json& decoder = json["added_tokens_decoder"] = Json::object();
  for (const AddedToken& token : tokenizer.added())
    decoder[std::to_string(token.id)] = written_added_token(token);
  return json;
}

Json byte_level_part(bool add_prefix_space, bool trim_offsets) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", trim_offsets},
          {"use_regex", true}};
}

void save_byte_level(const VocabularyTokenizer& tokenizer, const ByteBpeOptions& options,
                     const std::filesystem::path& folder) {
  Json json = frame(tokenizer);
  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = byte_level_part(options.add_prefix_space, true);
  const Json sequence = sequence_template(tokenizer);
  json["post_processor"] = sequence.is_null() ? byte_level_part(true, false) : sequence;
  json["decoder"] = byte_level_part(true, true);
  Json& model = json["model"] = {{"type", "BPE"},
                                 {"dropout", nullptr},
                                 {"unk_token", nullptr},
                                 {"continuing_subword_prefix", nullptr},
                                 {"end_of_word_suffix", nullptr},
                                 {"fuse_unk", options.fuse_unknown},
                                 {"byte_fallback", false},
                                 {"ignore_merges", options.ignore_merges}};
  if (!options.unknown.empty()) model["unk_token"] = options.unknown;
  model["vocab"] = vocabulary_of(tokenizer);
  Json& merges = model["merges"] = Json::array();
  for (const auto& [left, right] : options.merges) merges.push_back(Json::array({left, right}));
  write_json(json, folder / "tokenizer.json");
  Json config = configuration(tokenizer, "PreTrainedTokenizerFast");
  config["add_prefix_space"] = options.add_prefix_space;
  config["clean_up_tokenization_spaces"] = false;
  write_json(config, folder / "tokenizer_config.json");
}

}  // namespace

void save_wordpiece(const WordPiece& tokenizer, const std::filesystem::path& folder) {
  const WordPieceOptions& options = tokenizer.options();
  const BertNormalizerOptions& rules = options.normalizer;
  Json json = frame(tokenizer);
  json["normalizer"] = {{"type", "BertNormalizer"},
                        {"clean_text", rules.clean_text},
                        {"handle_chinese_chars", rules.ideographs},
                        {"strip_accents", rules.strip_accents},
                        {"lowercase", rules.lowercase}};
  json["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
  json["post_processor"] = sequence_template(tokenizer);
  json["decoder"] = nullptr;
  if (options.decoder)
    json["decoder"] = {{"type", "WordPiece"}, {"prefix", options.prefix}, {"cleanup", options.clean_up}};
  json["model"] = {{"type", "WordPiece"},
                   {"unk_token", options.unknown},
                   {"continuing_subword_prefix", options.prefix},
                   {"max_input_chars_per_word", options.longest_word},
                   {"vocab", vocabulary_of(tokenizer)}};
  write_json(json, folder / "tokenizer.json");

  std::string lines;
  std::int32_t next = 0;
  for (const auto& [text, id] : tokenizer.model_tokens()) {
    lines.append(static_cast<std::size_t>(id - next), '\n');  // ids without a token
    lines.append(text).push_back('\n');
    next = id + 1;
  }
  write_file_atomically(folder / "vocab.txt", lines);

  Json config = configuration(tokenizer, "BertTokenizer");
  config["do_lower_case"] = rules.lowercase;
  config["strip_accents"] = rules.strip_accents;
  config["tokenize_chinese_chars"] = rules.ideographs;
  write_json(config, folder / "tokenizer_config.json");
}

void save_bpe(const ByteBpe& tokenizer, const std::filesystem::path& folder) {
  save_byte_level(tokenizer, tokenizer.options(), folder);
}

void save_bytes(const ByteTokenizer& tokenizer, const std::filesystem::path& folder) {
  save_byte_level(tokenizer, {}, folder);
}

}  // namespace stoa
