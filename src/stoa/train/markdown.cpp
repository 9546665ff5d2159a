#include "stoa/train/markdown.h"

#include <sstream>

#include "stoa/base/format.h"
#include "stoa/train/html.h"

namespace stoa::html {

namespace {

std::string inlines(std::string_view text);

// `text` begins with `mark`: takes the span up to the next `mark` off it and appends it as `tag`. False where
// there is none.
bool take_span(std::string_view& text, std::string_view mark, const char* tag, bool plain,
               std::string& result) {
  if (!text.starts_with(mark)) return false;
  const auto end = text.find(mark, mark.size());
  if (end == std::string_view::npos || end == mark.size()) return false;
  const auto inside = text.substr(mark.size(), end - mark.size());
  result += format("<{}>{}</{}>", tag, plain ? escape(inside) : inlines(inside), tag);
  text.remove_prefix(end + mark.size());
  return true;
}

bool take_link(std::string_view& text, std::string& result) {
  if (!text.starts_with('[')) return false;
  const auto middle = text.find("](");
  const auto end = middle == std::string_view::npos ? middle : text.find(')', middle);
  if (end == std::string_view::npos) return false;
  const auto target = text.substr(middle + 2, end - middle - 2);
  // nothing but pages: a link must not be able to run a script
  if (target.find(':') != std::string_view::npos && !target.starts_with("https://") &&
      !target.starts_with("http://"))
    return false;
  result += format("<a href=\"{}\">{}</a>", escape(target), inlines(text.substr(1, middle - 1)));
  text.remove_prefix(end + 1);
  return true;
}

std::string inlines(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    if (take_span(text, "`", "code", true, result) || take_span(text, "**", "strong", false, result) ||
        take_span(text, "*", "em", false, result) || take_link(text, result))
      continue;
    result += escape(text.substr(0, 1));
    text.remove_prefix(1);
  }
  return result;
}

}  // namespace

std::string from_markdown(std::string_view text) {
  std::istringstream lines{std::string(text)};
  std::string result, block;
  bool list = false;
  const auto end_block = [&] {
    if (!block.empty()) result += element(list ? "li" : "p", inlines(block));
    block.clear();
  };
  const auto end_list = [&] {
    end_block();
    if (list) result += "</ul>\n";
    list = false;
  };
  for (std::string line; std::getline(lines, line);) {
    const auto first = line.find_first_not_of(" \t\r");
    if (first == std::string::npos) {
      end_list();
    } else if (line.compare(first, 2, "- ") == 0) {
      end_block();
      if (!list) result += "<ul>\n";
      list = true;
      block = line.substr(first + 2);
    } else {
      block += (block.empty() ? "" : " ") + line.substr(first);
    }
  }
  end_list();
  return result;
}

}  // namespace stoa::html
