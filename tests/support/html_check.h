#pragma once

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>
#include <vector>

namespace stoa::test {

/// What is wrong with a page as XML-like markup: elements that are not closed in order, `&` or `<` that begin
/// nothing; empty where nothing is. Style sheets and the document type are passed over.
inline std::string markup_fault(const std::string& page) {
  std::vector<std::string> open;
  for (std::size_t at = 0; (at = page.find_first_of("<&", at)) != std::string::npos;) {
    const std::string here = " at: " + page.substr(at, 60);
    if (page[at] == '&') {
      const auto end = page.find_first_not_of("abcdefghijklmnopqrstuvwxyz#0123456789", at + 1);
      if (end == std::string::npos || page[end] != ';' || end == at + 1) return "a bare &" + here;
      at = end;
      continue;
    }
    const auto end = page.find('>', at);
    if (end == std::string::npos) return "a tag without end" + here;
    const std::string tag = page.substr(at + 1, end - at - 1);
    at = end + 1;
    if (tag.starts_with("!DOCTYPE")) continue;
    if (std::ranges::count(tag, '"') % 2 != 0) return "an attribute that does not end" + here;
    const auto name_end = std::min(tag.find_first_of(" \n/", 1), tag.size());
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1)) return "<" + tag + "> closes nothing" + here;
      open.pop_back();
    } else if (tag.back() != '/') {
      const std::string name = tag.substr(0, name_end);
      if (name.empty() || std::isalpha(static_cast<unsigned char>(name[0])) == 0) return "a bare <" + here;
      open.push_back(name);
      if (name == "style") at = page.find("</style>", at);
    }
  }
  return open.empty() ? "" : "<" + open.back() + "> is not closed";
}

/// How often `part` occurs.
inline std::size_t count_of(std::string_view text, std::string_view part) {
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string_view::npos; at += part.size()) ++count;
  return count;
}

}  // namespace stoa::test
