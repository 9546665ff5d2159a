#pragma once

#include <cctype>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/data/text/tokenizer.h"

namespace stoa::test {

/// Words of a given list and single ASCII signs, cut at blanks; all else is one unknown token a word. Ids 0
/// to 4 are [PAD], [UNK], [CLS], [SEP] and [MASK], then come the words.
class FakeTokenizer : public Tokenizer {
 public:
  explicit FakeTokenizer(const std::vector<std::string>& words) {
    names_ = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    names_.insert(names_.end(), words.begin(), words.end());
    for (std::size_t i = 0; i < names_.size(); ++i) ids_.emplace(names_[i], static_cast<std::int32_t>(i));
    special_.pad = 0, special_.unknown = 1, special_.cls = 2, special_.sep = 3, special_.mask = 4;
  }

  std::vector<Token> tokens(std::string_view text) const override {
    std::vector<Token> found;
    for (std::size_t at = 0; at < text.size();) {
      const auto kind = [&](std::size_t i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        return std::isspace(byte) != 0 ? 0 : std::ispunct(byte) != 0 ? 1 : 2;
      };
      std::size_t end = at + 1;
      if (kind(at) == 2)
        while (end < text.size() && kind(end) == 2) ++end;
      if (kind(at) != 0)
        found.push_back({find(text.substr(at, end - at)).value_or(special_.unknown),
                         static_cast<std::int32_t>(at), static_cast<std::int32_t>(end)});
      at = end;
    }
    return found;
  }
  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<std::int32_t>& ids) const override {
    for (const auto& token : tokens(text)) ids.push_back(token.id);
  }
  std::string decode(std::span<const std::int32_t> ids, bool) const override {
    std::string text;
    for (const auto id : ids) text += (text.empty() ? "" : " ") + names_.at(static_cast<std::size_t>(id));
    return text;
  }
  std::int64_t size() const override { return std::ssize(names_); }
  std::string_view token(std::int32_t id) const override { return names_.at(static_cast<std::size_t>(id)); }
  std::optional<std::int32_t> find(std::string_view token) const override {
    const auto found = ids_.find(token);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }
  bool continues_word(std::int32_t) const override { return false; }
  const SpecialTokens& special() const override { return special_; }
  std::string kind() const override { return "fake"; }
  std::string fingerprint() const override { return "0123456789abcdef"; }
  void save(const std::filesystem::path&) const override { throw Error("a fake tokenizer has no files"); }

 private:
  std::vector<std::string> names_;
  std::map<std::string, std::int32_t, std::less<>> ids_;
  SpecialTokens special_;
};

}  // namespace stoa::test
