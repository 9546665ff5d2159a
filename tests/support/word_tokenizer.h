#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/text/tokenizer.h"
#include "support/click_files.h"

namespace stoa::test {

/// A tokenizer whose ids a test can read off the text: "w17" is 17, "##900" is 900 and goes on with the word
/// before it, a line break is 6, anything else unknown. Ids below 10 are special; those from `size` / 2 on
/// are written "##" and go on with a word. The byte 0xff stands for broken text.
class WordTokenizer : public Tokenizer {
 public:
  static constexpr std::int32_t kPad = 0, kUnknown = 1, kCls = 2, kSep = 3, kMask = 4, kEnd = 5, kBreak = 6;

  explicit WordTokenizer(std::int64_t size = 1000, bool with_end = true) : size_(size) {
    special_ = {.pad = kPad, .unknown = kUnknown, .cls = kCls, .sep = kSep, .mask = kMask};
    if (with_end) special_.end = kEnd;
  }

  std::vector<Token> tokens(std::string_view text) const override {
    std::vector<Token> tokens;
    for (std::size_t at = 0; at < text.size();) {
      const auto stop = std::min(text.find_first_of(" \n", at), text.size());
      const std::size_t end = text[at] == '\n' ? at + 1 : stop;
      if (text[at] != ' ')
        tokens.push_back({id_of(text.substr(at, end - at)), static_cast<int>(at), static_cast<int>(end)});
      at = end + (text[at] == ' ' ? 1 : 0);
    }
    return tokens;
  }
  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<std::int32_t>& ids) const override {
    for (const Token& token : tokens(text)) ids.push_back(token.id);
  }
  std::string decode(std::span<const std::int32_t> ids, bool) const override {
    std::string text;
    for (const std::int32_t id : ids) text += (text.empty() ? "" : " ") + std::string(token(id));
    return text;
  }
  std::int64_t size() const override { return size_; }
  std::string_view token(std::int32_t id) const override {
    static thread_local std::string text;
    return text = format("{}{}", continues_word(id) ? "##" : "w", id);
  }
  std::optional<std::int32_t> find(std::string_view token) const override { return id_of(token); }
  bool continues_word(std::int32_t id) const override { return id >= size_ / 2; }
  const SpecialTokens& special() const override { return special_; }
  std::string kind() const override { return "words"; }
  std::string fingerprint() const override { return format("{:016x}", static_cast<std::uint64_t>(size_)); }
  void save(const std::filesystem::path& folder) const override {
    write_text(folder / "words.json", format("{}\n", size_));
  }

 private:
  std::int32_t id_of(std::string_view word) const {
    if (word == "\n") return kBreak;
    if (word.find('\xff') != std::string_view::npos) throw DataError("byte 0 is not UTF-8");
    const std::size_t digits = word.find_first_of("0123456789");
    if (digits == std::string_view::npos || digits == 0) return kUnknown;
    const int id = std::atoi(std::string(word.substr(digits)).c_str());
    return id < size_ ? id : kUnknown;
  }

  std::int64_t size_;
  SpecialTokens special_;
};

/// Sentence `number` of a made corpus: 3 to 12 words, the first of which tell document and sentence.
inline std::string made_sentence(std::int64_t document, std::int64_t number, std::int64_t size) {
  RandomStream random(mix_seed({static_cast<std::uint64_t>(document), static_cast<std::uint64_t>(number)}));
  std::string text = format("w{} w{}", 10 + document % 100, 200 + number % 200);
  for (std::int64_t i = random.integer(1, 11); i > 0; --i) {
    const std::int64_t id = random.integer(10, size);
    text += format(" {}{}", id >= size / 2 ? "##" : "w", id);
  }
  return text;
}

/// `documents` documents of 1 to 12 sentences, one a line, blank lines between them.
inline std::string made_text(std::int64_t documents, std::int64_t size = 1000) {
  std::string text;
  for (std::int64_t d = 0; d < documents; ++d) {
    const std::int64_t sentences = RandomStream(mix_seed({7, static_cast<std::uint64_t>(d)})).integer(1, 13);
    for (std::int64_t s = 0; s < sentences; ++s) text += made_sentence(d, s, size) + "\n";
    text += "\n";
  }
  return text;
}

}  // namespace stoa::test
