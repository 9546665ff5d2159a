#include "stoa/data/text/tsv.h"

#include <algorithm>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/text/unicode.h"

namespace stoa {

TsvReader::TsvReader(std::string_view text, std::string where) : rest_(text), where_(std::move(where)) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (rest_.starts_with(kByteOrderMark)) rest_.remove_prefix(kByteOrderMark.size());
}

bool TsvReader::line(std::string_view& line) {
  if (rest_.empty()) return false;
  ++number_;
  const auto end = std::min(rest_.find('\n'), rest_.size());
  line = rest_.substr(0, end);
  rest_.remove_prefix(std::min(end + 1, rest_.size()));
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (const auto valid = unicode::valid_prefix(line); valid < line.size())
    throw DataError(format("{}: byte {} is not UTF-8; save the file as UTF-8", place(), valid + 1));
  return true;
}

bool TsvReader::fields(std::vector<std::string_view>& fields) {
  std::string_view whole;
  if (!line(whole)) return false;
  fields = cut_at_tabs(whole);
  return true;
}

std::string TsvReader::place() const {
  return format("{}, line {}", where_, number_);
}

std::vector<std::string_view> cut_at_tabs(std::string_view line) {
  std::vector<std::string_view> fields;
  while (true) {
    const auto tab = line.find('\t');
    fields.push_back(line.substr(0, tab));
    if (tab == std::string_view::npos) return fields;
    line.remove_prefix(tab + 1);
  }
}

}  // namespace stoa
