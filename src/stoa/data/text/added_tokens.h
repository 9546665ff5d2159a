#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stoa/data/text/byte_trie.h"

namespace stoa {

/// A token that is looked for in the text as it stands, before anything else cuts it, with the properties
/// that tokenizer.json gives it.
struct AddedToken {
  std::string content;
  std::int32_t id = -1;
  bool special = true;                           ///< left out of decoded text
  bool single_word = false;                      ///< not found inside of a word
  bool left_strip = false, right_strip = false;  ///< takes the white space beside it
  bool normalized = false;                       ///< looked for in the normalised text
  bool of_model = true;                          ///< the model's vocabulary has it too
};

/// Finds added tokens: the leftmost, of those the longest.
class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  /// `contents[i]` is what is looked for `tokens[i]`; tokens that share it with a later one are not found.
  AddedTokenMatcher(std::vector<AddedToken> tokens, const std::vector<std::string>& contents);

  bool empty() const { return tokens_.empty(); }

  /// A part of a text: an added token or, with id -1, what lies between two.
  struct Part {
    std::size_t begin, end;
    std::int32_t id;
  };
  /// Calls `part(Part)` for each part of a valid text, in order.
  template <class Work>
  void split(std::string_view text, const Work& part) const {
    std::size_t done = 0;
    Part found{};
    for (std::size_t from = 0; find(text, done, from, found); done = found.end) {
      if (done < found.begin) part(Part{done, found.begin, -1});
      part(found);
    }
    if (done < text.size()) part(Part{done, text.size(), -1});
  }

 private:
  bool find(std::string_view text, std::size_t done, std::size_t& from, Part& found) const;
  std::size_t next_candidate(std::string_view text, std::size_t from) const;

  std::vector<AddedToken> tokens_;
  ByteTrie trie_;  // of places in tokens_
  std::array<bool, 256> begins_{};
  int only_first_ = -1;  // the byte that all begin with, if it is one
};

}  // namespace stoa
