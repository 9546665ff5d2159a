#include "stoa/data/text/sentencepiece.h"

#include <sentencepiece_processor.h>

#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/text/byte_level.h"

namespace stoa {
namespace {

using sentencepiece::SentencePieceProcessor;

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581 stands for a space

class SentencePieceTokenizer final : public VocabularyTokenizer {
 public:
  SentencePieceTokenizer(TokenizerParts parts, std::unique_ptr<const SentencePieceProcessor> processor,
                         std::string model)
      : VocabularyTokenizer(std::move(parts)), processor_(std::move(processor)), model_(std::move(model)) {
    set_fingerprint(std::vector<std::string>{model_});
  }

  std::string decode(std::span<const std::int32_t> ids, bool skip_special) const override {
    std::string text;
    std::vector<int> run;
    const auto flush = [&] {
      std::string piece;
      check(processor_->Decode(run, &piece));
      text += piece;
      run.clear();
    };
    for (const std::int32_t id : shown(ids, skip_special)) {
      if (!is_special(id)) {
        run.push_back(id);
        continue;
      }
      flush();
      text += token(id);
    }
    flush();
    return text;
  }
  bool continues_word(std::int32_t id) const override {
    const std::string_view piece = token(id);
    return !is_added(id) && !processor_->IsUnknown(id) && !piece.starts_with(kSpace) &&
           byte_level::continues_word(piece);
  }
  std::string kind() const override { return "sentencepiece"; }
  void save(const std::filesystem::path& folder) const override {
    write_file_atomically(folder / "tokenizer.model", model_);
    write_file_atomically(folder / "special_tokens_map.json", written_roles(*this).dump(2) + "\n");
  }

 private:
  static void check(const sentencepiece::util::Status& status) {
    if (!status.ok()) throw DataError(format("SentencePiece: {}", status.ToString()));
  }
  void cut(std::string_view text, std::int32_t offset, std::vector<Token>& tokens) const override {
    const auto pieces = processor_->EncodeAsImmutableProto(text);
    for (std::size_t i = 0; i < pieces.pieces_size(); ++i) {
      const auto piece = pieces.pieces(static_cast<int>(i));
      tokens.push_back({static_cast<std::int32_t>(piece.id()),
                        offset + static_cast<std::int32_t>(piece.begin()),
                        offset + static_cast<std::int32_t>(piece.end())});
    }
  }
  void cut(std::string_view text, std::vector<std::int32_t>& ids) const override {
    std::vector<int> found;
    check(processor_->Encode(text, &found));
    ids.insert(ids.end(), found.begin(), found.end());
  }

  std::unique_ptr<const SentencePieceProcessor> processor_;
  std::string model_;
};

}  // namespace

std::shared_ptr<const Tokenizer> tokenizer_from_sentencepiece(std::string model, const std::string& name,
                                                              const TokenizerConfig& config,
                                                              BrokenUtf8 broken) {
  auto processor = std::make_unique<SentencePieceProcessor>();
  const auto status = processor->LoadFromSerializedProto(model);
  if (!status.ok() || processor->GetPieceSize() < 1)
    throw DataError(format("{}: not a SentencePiece model", name));
  TokenizerParts parts;
  parts.broken = broken;
  std::vector<std::string> pieces;
  for (int id = 0; id < processor->GetPieceSize(); ++id) pieces.push_back(processor->IdToPiece(id));
  parts.tokens = TokenList(std::move(pieces));
  try {
    parts.special = special_tokens(config, parts.tokens);
  } catch (const DataError& error) {
    throw DataError(format("{}: {}", name, error.what()));
  }
  SpecialTokens& special = parts.special;
  const auto take = [](std::int32_t& role, int id) {
    if (role < 0) role = id;
  };
  take(special.pad, processor->pad_id());
  take(special.unknown, processor->unk_id());
  take(special.begin, processor->bos_id());
  take(special.end, processor->eos_id());
  for (std::int32_t id = 0; id < parts.tokens.size(); ++id) {
    const bool role = id == special.cls || id == special.sep || id == special.mask;
    if (role || processor->IsControl(id)) parts.added.push_back({.content = parts.tokens.text(id), .id = id});
  }
  return std::make_shared<SentencePieceTokenizer>(std::move(parts), std::move(processor), std::move(model));
}

}  // namespace stoa
