#pragma once

#include <string>
#include <string_view>

namespace stoa::html {

/// The Markdown that texts of experiments are written in, as HTML: paragraphs, lists with `- `, `code`,
/// **strong**, *stressed* and [links](https://...). Anything else stands as it is.
std::string from_markdown(std::string_view text);

}  // namespace stoa::html
