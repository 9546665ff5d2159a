#pragma once

#include <string_view>
#include <vector>

namespace stoa {

/// Text without the ASCII white space at both ends.
std::string_view without_outer_space(std::string_view text);

/// Cuts a paragraph into sentences, white space around them dropped. A sentence ends behind `.`, `!`, `?` or
/// `…` (several in a row, closing quotes and brackets included) where white space follows and then neither a
/// small ASCII letter nor the end; not behind a point that ends an initial ("J.") or a common abbreviation
/// ("Dr.", "e.g.") before more text. Behind the full-width marks `。！？` it ends without white space.
std::vector<std::string_view> split_sentences(std::string_view paragraph);

}  // namespace stoa
