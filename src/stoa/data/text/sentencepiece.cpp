#include "stoa/data/text/sentencepiece.h"

#include <dlfcn.h>

#include <filesystem>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/text/byte_level.h"
#include "stoa/data/text/sentencepiece_model.h"

namespace stoa {
namespace {

constexpr const char* kModule = "stoa_sentencepiece.so";

/// The module beside the file that this code is in (an installed tree), or where the build put it.
std::filesystem::path module_file() {
  Dl_info own = {};
  if (::dladdr(reinterpret_cast<const void*>(&module_file), &own) != 0 && own.dli_fname != nullptr) {
    const auto beside = std::filesystem::path(own.dli_fname).parent_path() / kModule;
    if (std::filesystem::exists(beside)) return beside;
  }
  return std::filesystem::path(STOA_MODULES) / kModule;
}

/// Loads the module, once, so that its libraries take their own definitions before those of anybody else.
OpenSentencePiece* open_module() {
#if defined(__SANITIZE_ADDRESS__)  // whose run time does not bear RTLD_DEEPBIND
  throw DataError("SentencePiece models cannot be read in a build with sanitizers; use another build");
#else
  static OpenSentencePiece* const function = [] {
    const auto file = module_file();
    void* const handle = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    void* const found = handle == nullptr ? nullptr : ::dlsym(handle, kOpenSentencePiece);
    if (found == nullptr)
      throw IoError(
          format("cannot load {}, which reads SentencePiece models: {}", file.string(), ::dlerror()));
    return reinterpret_cast<OpenSentencePiece*>(found);
  }();
  return function;
#endif
}

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581 stands for a space

class SentencePieceTokenizer final : public VocabularyTokenizer {
 public:
  SentencePieceTokenizer(TokenizerParts parts, std::unique_ptr<const SentencePieceModel> processor,
                         std::string model)
      : VocabularyTokenizer(std::move(parts)), processor_(std::move(processor)), model_(std::move(model)) {
    set_fingerprint(std::vector<std::string>{model_});
  }

  std::string decode(std::span<const std::int32_t> ids, bool skip_special) const override {
    std::string text;
    std::vector<std::int32_t> run;
    const auto flush = [&] {
      text += processor_->decode(run);
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
    return !is_added(id) && !processor_->is_unknown(id) && !piece.starts_with(kSpace) &&
           byte_level::continues_word(piece);
  }
  std::string kind() const override { return "sentencepiece"; }
  void save(const std::filesystem::path& folder) const override {
    write_file_atomically(folder / "tokenizer.model", model_);
    write_file_atomically(folder / "special_tokens_map.json", written_roles(*this).dump(2) + "\n");
  }

 private:
  void cut(std::string_view text, std::int32_t offset, std::vector<Token>& tokens) const override {
    for (const auto& piece : processor_->pieces(text))
      tokens.push_back({piece.id, offset + piece.begin, offset + piece.end});
  }
  void cut(std::string_view text, std::vector<std::int32_t>& ids) const override {
    processor_->encode(text, ids);
  }

  std::unique_ptr<const SentencePieceModel> processor_;
  std::string model_;
};

}  // namespace

std::shared_ptr<const Tokenizer> tokenizer_from_sentencepiece(std::string model, const std::string& name,
                                                              const TokenizerConfig& config,
                                                              BrokenUtf8 broken) {
  std::unique_ptr<const SentencePieceModel> processor(open_module()(model.data(), model.size()));
  if (!processor) throw DataError(format("{}: not a SentencePiece model", name));
  TokenizerParts parts;
  parts.broken = broken;
  std::vector<std::string> pieces;
  for (std::int32_t id = 0; id < processor->size(); ++id) pieces.push_back(processor->piece(id));
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
  take(special.pad, processor->pad());
  take(special.unknown, processor->unknown());
  take(special.begin, processor->begin());
  take(special.end, processor->end());
  for (std::int32_t id = 0; id < parts.tokens.size(); ++id) {
    const bool role = id == special.cls || id == special.sep || id == special.mask;
    if (role || processor->is_control(id))
      parts.added.push_back({.content = parts.tokens.text(id), .id = id});
  }
  return std::make_shared<SentencePieceTokenizer>(std::move(parts), std::move(processor), std::move(model));
}

}  // namespace stoa
