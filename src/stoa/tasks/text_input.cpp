#include "stoa/tasks/text_input.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <sstream>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

bool looks_like_a_file(const std::string& input) {
  constexpr std::array kEndings = {".tsv", ".txt", ".csv", ".json", ".jsonl", ".ndjson", ".gz"};
  if (input.find_first_of(" \t\n") != std::string::npos) return false;
  return input.find('/') != std::string::npos ||
         std::ranges::any_of(kEndings, [&](const char* ending) { return input.ends_with(ending); });
}

}  // namespace

TextInput read_text_input(const std::string& input) {
  if (input == "-") return {{std::istreambuf_iterator<char>(std::cin), {}}, "standard input"};
  std::error_code none;  // a long text is no possible name
  if (fs::is_regular_file(input, none)) {
    const auto bytes = read_maybe_gzip(input);
    return {{reinterpret_cast<const char*>(bytes.data()), bytes.size()}, input};
  }
  if (looks_like_a_file(input)) throw IoError(format("{}: there is no such file", input));
  return {input, "the text"};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    if (line.ends_with('\r')) line.pop_back();
    lines.push_back(line);
  }
  return lines;
}

}  // namespace stoa
