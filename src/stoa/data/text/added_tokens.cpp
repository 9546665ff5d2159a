#include "stoa/data/text/added_tokens.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "stoa/data/text/unicode.h"

namespace stoa {
namespace {

bool is_space(char32_t point) {
  return (unicode::classes(point) & unicode::kSpace) != 0;
}

/// Whether a word goes on over the place `at`, to the left or to the right of it.
bool word_before(std::string_view text, std::size_t at) {
  return at > 0 && unicode::is_word_character(unicode::last_before(text.data() + at));
}
bool word_behind(std::string_view text, std::size_t at) {
  const char* next = text.data() + at;
  return at < text.size() && unicode::is_word_character(unicode::next(next));
}

std::size_t space_before(std::string_view text, std::size_t at) {
  while (at > 0) {
    const char32_t point = unicode::last_before(text.data() + at);
    if (!is_space(point)) break;
    char bytes[4];
    at -= static_cast<std::size_t>(unicode::put(point, bytes));
  }
  return at;
}

std::size_t space_behind(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const char* next = text.data() + at;
    if (!is_space(unicode::next(next))) break;
    at = static_cast<std::size_t>(next - text.data());
  }
  return at;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens, const std::vector<std::string>& contents)
    : tokens_(std::move(tokens)) {
  std::vector<std::pair<std::string_view, std::int32_t>> keys;
  for (std::size_t i = 0; i < contents.size(); ++i) {
    if (contents[i].empty()) continue;
    keys.emplace_back(contents[i], static_cast<std::int32_t>(i));
    begins_[static_cast<std::uint8_t>(contents[i][0])] = true;
  }
  trie_ = ByteTrie(std::move(keys));
  if (std::ranges::count(begins_, true) == 1)
    only_first_ = static_cast<int>(std::ranges::find(begins_, true) - begins_.begin());
}

/// The first place from `from` on at which a token may begin, or the end of the text.
std::size_t AddedTokenMatcher::next_candidate(std::string_view text, std::size_t from) const {
  if (only_first_ >= 0 && from < text.size()) {
    const void* at = std::memchr(text.data() + from, only_first_, text.size() - from);
    return at == nullptr ? text.size() : static_cast<std::size_t>(static_cast<const char*>(at) - text.data());
  }
  while (from < text.size() && !begins_[static_cast<std::uint8_t>(text[from])]) ++from;
  return from;
}

/// The next token at or behind `from`, which moves behind its text. White space that it takes is never that
/// of the part before `done`.
bool AddedTokenMatcher::find(std::string_view text, std::size_t done, std::size_t& from, Part& found) const {
  if (tokens_.empty()) return false;
  for (from = next_candidate(text, from); from < text.size(); from = next_candidate(text, from)) {
    const ByteTrie::Match match = trie_.longest(ByteTrie::kRoot, text.substr(from));
    if (match.length == 0) {
      ++from;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(match.id)];
    std::size_t begin = from, end = from + match.length;
    from = end;
    if (token.single_word && (word_before(text, begin) || word_behind(text, end))) continue;
    if (token.left_strip) begin = std::max(space_before(text, begin), done);
    if (token.right_strip) end = space_behind(text, end);
    found = {begin, end, token.id};
    return true;
  }
  return false;
}

}  // namespace stoa
