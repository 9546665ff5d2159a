#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/text/byte_tokenizer.h"
#include "stoa/data/text/sentencepiece.h"
#include "stoa/data/text/tokenizer_json.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;

/// The file of a folder that makes the tokenizer.
fs::path file_of_folder(const fs::path& folder) {
  for (const char* name : {"tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model",
                           "sentencepiece.bpe.model"})
    if (fs::exists(folder / name)) return folder / name;
  throw DataError(
      format("{}: no tokenizer in this folder; a tokenizer.json, a vocab.txt, a vocab.json with its "
             "merges.txt or a tokenizer.model is needed",
             folder.string()));
}

}  // namespace

std::shared_ptr<const Tokenizer> load_tokenizer(const fs::path& place, BrokenUtf8 broken) {
  if (place == "bytes") return std::make_shared<ByteTokenizer>(broken);
  std::error_code ignored;
  if (!fs::exists(place, ignored))
    throw IoError(
        format("{}: no such tokenizer; give `bytes`, a vocab.txt, a tokenizer.json, a SentencePiece "
               ".model or a folder that holds one",
               place.string()));
  const fs::path file = fs::is_directory(place, ignored) ? file_of_folder(place) : place;
  const fs::path folder = file.parent_path();
  const std::string name = file.string();
  const TokenizerConfig config = read_tokenizer_config(folder);
  std::string content = read_file(file);
  if (file.extension() == ".model")
    return tokenizer_from_sentencepiece(std::move(content), name, config, broken);
  const bool json = file.extension() == ".json";
  if (json && file.filename() != "vocab.json")
    return tokenizer_from_json(parse_sorted_json(content, name), name, config, broken);
  if (fs::exists(folder / "added_tokens.json"))
    throw DataError(
        format("{}: added_tokens.json beside it is not read; save the tokenizer anew with a "
               "tokenizer.json, as `transformers` does",
               name));
  if (!json) return tokenizer_from_vocab_txt(content, name, config, broken);
  const fs::path merges = folder / "merges.txt";
  if (!fs::exists(merges)) throw DataError(format("{}: no merges.txt beside it", name));
  return tokenizer_from_merges(parse_sorted_json(content, name), read_file(merges), name, config, broken);
}

}  // namespace stoa
