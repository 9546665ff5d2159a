#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stoa {

/// Reads a tab-separated table line by line. Nothing is quoted or escaped: a quotation mark is text. Lines
/// end with LF or CR LF; a byte order mark in front is passed over.
class TsvReader {
 public:
  /// `where` stands in front of messages. `text` must outlive the reader and what it hands out.
  TsvReader(std::string_view text, std::string where);

  /// The next line as one piece; false behind the last. Throws DataError for a line that is not UTF-8.
  bool line(std::string_view& line);
  /// The next line, cut at its tabs; an empty line is one empty field.
  bool fields(std::vector<std::string_view>& fields);

  /// "train.tsv, line 3": the line that was read last
  std::string place() const;
  std::int64_t number() const { return number_; }

 private:
  std::string_view rest_;
  std::string where_;
  std::int64_t number_ = 0;
};

/// A line cut at its tabs.
std::vector<std::string_view> cut_at_tabs(std::string_view line);

}  // namespace stoa
