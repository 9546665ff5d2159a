#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace stoa {

/// Ids of the tokens with a role of their own; -1 where a vocabulary has none.
struct SpecialTokens {
  std::int32_t pad = -1, unknown = -1;
  std::int32_t cls = -1, sep = -1, mask = -1;  ///< of BERT and its kin: [CLS] A [SEP] B [SEP]
  std::int32_t begin = -1, end = -1;           ///< of causal models: around a document
};

/// A token and the bytes of the text it stands for: [begin, end).
struct Token {
  std::int32_t id = 0;
  std::int32_t begin = 0, end = 0;
};

/// What is done with text that is not UTF-8.
enum class BrokenUtf8 {
  kRefuse,   ///< DataError with the offset of the first broken byte
  kReplace,  ///< each maximal broken part reads as U+FFFD
};

/// Cuts text into tokens of a vocabulary. Immutable; used from several threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Tokens of a text with the bytes they stand for; nothing is put around it. Special tokens that the text
  /// spells out ("[MASK]") are found. Throws DataError for broken UTF-8 unless it is replaced.
  virtual std::vector<Token> tokens(std::string_view text) const = 0;
  /// The same without places, appended to `ids`.
  virtual void encode(std::string_view text, std::vector<std::int32_t>& ids) const = 0;
  std::vector<std::int32_t> encode(std::string_view text) const {
    std::vector<std::int32_t> ids;
    encode(text, ids);
    return ids;
  }
  /// The text of some tokens, as Python's `tokenizers` decodes them. Throws DataError for an id outside the
  /// vocabulary.
  virtual std::string decode(std::span<const std::int32_t> ids, bool skip_special = true) const = 0;

  /// Ids run from 0 to size() - 1.
  virtual std::int64_t size() const = 0;
  /// A token as the vocabulary writes it ("##ing"). Throws DataError for an id outside it.
  virtual std::string_view token(std::int32_t id) const = 0;
  virtual std::optional<std::int32_t> find(std::string_view token) const = 0;
  /// Whether the token goes on with a word begun by those before it: what whole-word masking joins.
  virtual bool continues_word(std::int32_t id) const = 0;
  virtual const SpecialTokens& special() const = 0;

  /// "wordpiece", "bpe", "sentencepiece" or "bytes"
  virtual std::string kind() const = 0;
  /// 16 hexadecimal digits of everything that decides which ids a text gets: tokenised data carry it.
  virtual std::string fingerprint() const = 0;
  /// Writes the files that load_tokenizer() and Python's `transformers` read into an existing folder.
  virtual void save(const std::filesystem::path& folder) const = 0;
};

/// Reads a tokenizer: "bytes" (256 byte values and seven special tokens, no file), a `vocab.txt` (WordPiece),
/// a `tokenizer.json` (WordPiece or byte-level BPE), a SentencePiece `.model`, or a folder that holds one of
/// them (tokenizer.json first; special_tokens_map.json and tokenizer_config.json are heeded). Throws IoError,
/// DataError naming file and what is wrong.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& place,
                                                BrokenUtf8 broken = BrokenUtf8::kReplace);

}  // namespace stoa
