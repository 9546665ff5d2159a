#pragma once

#include "stoa/data/text/vocabulary_tokenizer.h"

namespace stoa {

/// Every byte of a text is a token: ids 0 to 255, then [PAD] [UNK] [CLS] [SEP] [MASK] [BEGIN] [END]. Saved as
/// a byte-level BPE without merges, which is the same to `transformers`.
class ByteTokenizer final : public VocabularyTokenizer {
 public:
  explicit ByteTokenizer(BrokenUtf8 broken);

  std::string decode(std::span<const std::int32_t> ids, bool skip_special) const override;
  bool continues_word(std::int32_t id) const override;
  std::string kind() const override { return "bytes"; }
  void save(const std::filesystem::path& folder) const override;

 private:
  void cut(std::string_view text, std::int32_t offset, std::vector<Token>& tokens) const override;
  void cut(std::string_view text, std::vector<std::int32_t>& ids) const override;
};

}  // namespace stoa
