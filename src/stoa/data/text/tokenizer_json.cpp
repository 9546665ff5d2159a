#include "stoa/data/text/tokenizer_json.h"

#include <algorithm>
#include <utility>

#include "stoa/data/text/byte_bpe.h"
#include "stoa/data/text/byte_tokenizer.h"
#include "stoa/data/text/tokenizer_parts.h"
#include "stoa/data/text/wordpiece.h"

namespace stoa {
namespace {

using json_fields::find, json_fields::need, json_fields::only, json_fields::truth;

std::vector<AddedToken> read_added_tokens(const SortedJson& json, const std::string& name) {
  std::vector<AddedToken> added;
  const SortedJson* all = find(json, "added_tokens", name);
  if (all == nullptr) return added;
  if (!all->is_array()) throw DataError(format("{}: `added_tokens` is not a list", name));
  for (const SortedJson& entry : *all) {
    const std::string place = format("{}: `added_tokens` {}", name, added.size() + 1);
    added.push_back(read_added_token(entry, place));
    added.back().id = json_fields::id(need(entry, "id", place), place);
  }
  return added;
}

/// A part of the pipeline by its "type", taken out of sequences of one; nullptr where there is none.
const SortedJson* part_of(const SortedJson& json, std::string_view key, std::string_view list,
                          const std::string& name) {
  const SortedJson* part = find(json, key, name);
  for (; part != nullptr && json_fields::text(*part, "type", "", name) == "Sequence";) {
    const SortedJson& all = need(*part, list, name);
    if (!all.is_array() || all.size() != 1)
      throw DataError(format("{}: a `Sequence` of several as {} is not supported", name, key));
    part = &all[0];
  }
  return part;
}

void need_type(const SortedJson* part, std::string_view key, std::string_view model, std::string_view wanted,
               const std::string& name) {
  const std::string type = part == nullptr ? "none" : json_fields::text(*part, "type", "", name);
  if (type != wanted)
    throw DataError(
        format("{}: {} `{}` is not supported with {}; {} is needed", name, key, type, model, wanted));
}

BertNormalizerOptions read_normalizer(const SortedJson& json, const std::string& name) {
  const SortedJson* part = part_of(json, "normalizer", "normalizers", name);
  if (part == nullptr) return {false, false, false, false};
  need_type(part, "normalizer", "WordPiece", "BertNormalizer", name);
  const std::string place = name + ": `normalizer`";
  only(*part, {"type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"}, place);
  BertNormalizerOptions options;
  options.clean_text = truth(*part, "clean_text", true, place);
  options.ideographs = truth(*part, "handle_chinese_chars", true, place);
  options.lowercase = truth(*part, "lowercase", true, place);
  options.strip_accents = truth(*part, "strip_accents", options.lowercase, place);
  return options;
}

std::shared_ptr<const Tokenizer> read_wordpiece(const SortedJson& json, const SortedJson& model,
                                                const std::string& name, const TokenizerConfig& config,
                                                BrokenUtf8 broken) {
  const std::string place = name + ": `model`";
  only(model, {"type", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab"}, place);
  WordPieceOptions options;
  options.normalizer = read_normalizer(json, name);
  const SortedJson* cut = part_of(json, "pre_tokenizer", "pretokenizers", name);
  need_type(cut, "pre_tokenizer", "WordPiece", "BertPreTokenizer", name);
  options.unknown = json_fields::text(model, "unk_token", options.unknown, place);
  options.prefix = json_fields::text(model, "continuing_subword_prefix", options.prefix, place);
  options.longest_word = json_fields::whole(model, "max_input_chars_per_word", options.longest_word, place);
  const SortedJson* decoder = part_of(json, "decoder", "decoders", name);
  options.decoder = decoder != nullptr;
  if (options.decoder) {
    need_type(decoder, "decoder", "WordPiece", "WordPiece", name);
    only(*decoder, {"type", "prefix", "cleanup"}, name + ": `decoder`");
    if (json_fields::text(*decoder, "prefix", "##", name) != options.prefix)
      throw DataError(format("{}: the decoder's prefix is not the model's `{}`", name, options.prefix));
    options.clean_up = truth(*decoder, "cleanup", true, name);
  }
  auto parts = make_tokenizer_parts(read_token_ids(need(model, "vocab", place), place),
                                    read_added_tokens(json, name), name, config, broken);
  return naming_file(name, [&] { return std::make_shared<WordPiece>(std::move(parts), std::move(options)); });
}

/// "a b" or ["a", "b"]
std::vector<std::pair<std::string, std::string>> read_merges(const SortedJson& json,
                                                             const std::string& place) {
  std::vector<std::pair<std::string, std::string>> merges;
  if (!json.is_array()) throw DataError(format("{}: `merges` is not a list", place));
  for (const SortedJson& merge : json) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    const std::string text = merge.is_string() ? merge.get<std::string>() : "";
    const std::size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
      throw DataError(format("{}: merge {} is not two tokens", place, merges.size() + 1));
    merges.emplace_back(text.substr(0, space), text.substr(space + 1));
  }
  return merges;
}

/// The tokenizer of these parts; that of single bytes where it is the same, as that is how it is saved.
std::shared_ptr<const Tokenizer> make_bpe(TokenizerParts parts, ByteBpeOptions options,
                                          const std::string& name) {
  if (options.merges.empty() && options.unknown.empty() && !options.add_prefix_space) {
    auto bytes = std::make_shared<ByteTokenizer>(parts.broken);
    const auto plain = [](const AddedToken& token) {
      return token.special && !token.single_word && !token.left_strip && !token.right_strip &&
             !token.normalized && !token.of_model;
    };
    bool same = parts.tokens.size() == bytes->size() && parts.added.size() == bytes->added().size() &&
                std::ranges::all_of(parts.added, plain);
    for (std::int32_t id = 0; same && id < bytes->size(); ++id)
      same = parts.tokens.text(id) == bytes->token(id);
    if (same) return bytes;
  }
  return naming_file(name, [&] { return std::make_shared<ByteBpe>(std::move(parts), std::move(options)); });
}

std::shared_ptr<const Tokenizer> read_bpe(const SortedJson& json, const SortedJson& model,
                                          const std::string& name, const TokenizerConfig& config,
                                          BrokenUtf8 broken) {
  const std::string place = name + ": `model`";
  only(model,
       {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
        "byte_fallback", "ignore_merges", "vocab", "merges"},
       place);
  const auto refuse = [&](bool holds, const char* what) {
    if (holds) throw DataError(format("{}: {} is not supported", place, what));
  };
  const SortedJson* dropout = find(model, "dropout", place);
  refuse(dropout != nullptr && !(dropout->is_number() && dropout->get<double>() == 0), "`dropout`");
  refuse(!json_fields::text(model, "continuing_subword_prefix", "", place).empty(),
         "`continuing_subword_prefix`");
  refuse(!json_fields::text(model, "end_of_word_suffix", "", place).empty(), "`end_of_word_suffix`");
  refuse(truth(model, "byte_fallback", false, place), "`byte_fallback`");
  if (const SortedJson* normalizer = part_of(json, "normalizer", "normalizers", name))
    need_type(normalizer, "normalizer", "BPE", "none", name);
  const SortedJson* cut = part_of(json, "pre_tokenizer", "pretokenizers", name);
  need_type(cut, "pre_tokenizer", "BPE", "ByteLevel", name);
  only(*cut, {"type", "add_prefix_space", "trim_offsets", "use_regex"}, name + ": `pre_tokenizer`");
  if (!truth(*cut, "use_regex", true, name))
    throw DataError(format("{}: `ByteLevel` without its pattern (use_regex) is not supported", name));
  if (const SortedJson* decoder = part_of(json, "decoder", "decoders", name))
    need_type(decoder, "decoder", "BPE", "ByteLevel", name);
  ByteBpeOptions options;
  options.add_prefix_space = truth(*cut, "add_prefix_space", true, name);
  options.ignore_merges = truth(model, "ignore_merges", false, place);
  options.fuse_unknown = truth(model, "fuse_unk", false, place);
  options.unknown = json_fields::text(model, "unk_token", "", place);
  options.merges = read_merges(need(model, "merges", place), place);
  auto parts = make_tokenizer_parts(read_token_ids(need(model, "vocab", place), place),
                                    read_added_tokens(json, name), name, config, broken);
  return make_bpe(std::move(parts), std::move(options), name);
}

}  // namespace

std::shared_ptr<const Tokenizer> tokenizer_from_json(const SortedJson& json, const std::string& name,
                                                     const TokenizerConfig& config, BrokenUtf8 broken) {
  only(json,
       {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
        "decoder", "model"},
       name);
  const SortedJson& model = need(json, "model", name);
  std::string type = json_fields::text(model, "type", "", name);
  if (type.empty())  // older files do not say
    type = model.contains("merges") ? "BPE" : model.contains("max_input_chars_per_word") ? "WordPiece" : "";
  if (type == "WordPiece") return read_wordpiece(json, model, name, config, broken);
  if (type == "BPE") return read_bpe(json, model, name, config, broken);
  throw DataError(format("{}: model `{}` is not supported; supported: WordPiece, BPE{}", name, type,
                         type == "Unigram" ? "; give the .model file of SentencePiece instead" : ""));
}

}  // namespace stoa
