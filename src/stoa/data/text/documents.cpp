#include "stoa/data/text/documents.h"

#include <algorithm>
#include <array>
#include <functional>
#include <string_view>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/json.h"
#include "stoa/data/text/sentences.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr std::array<const char*, 3> kJsonEndings = {".jsonl", ".ndjson", ".json"};
constexpr std::array<const char*, 2> kTextEndings = {".txt", ".text"};
constexpr int kDeepest = 100;  // levels of a JSON value

/// The ending of a file's name that says what its text is.
std::string ending_of(const fs::path& file) {
  const fs::path name = file.filename();
  const bool packed = name.extension() == ".gz" || name.extension() == ".zst";
  return (packed ? name.stem().extension() : name.extension()).string();
}

bool is_text_name(const fs::path& file) {
  const std::string ending = ending_of(file);
  return !file.filename().string().starts_with('.') &&
         (is_json_lines(file) || std::ranges::find(kTextEndings, ending) != kTextEndings.end());
}

void check_has_text(const fs::path& file) {
  const auto source = open_byte_source(file);
  std::vector<char> piece(1 << 16);
  bool first = true;
  while (const std::size_t got = source->read(piece.data(), piece.size())) {
    std::string_view text(piece.data(), got);
    if (std::exchange(first, false)) text = without_byte_order_mark(text);
    if (!without_outer_space(text).empty()) return;
  }
  throw DataError(format("{}: there is no text in it; leave the file out", file.string()));
}

/// Bytes of the well-formed UTF-8 character at the front; 0, with the length of the broken part, where none
/// is.
std::size_t character_length(std::string_view text, std::size_t& broken) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  broken = 1;
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xc2 && lead < 0xe0   ? 2
                             : lead >= 0xe0 && lead < 0xf0 ? 3
                             : lead >= 0xf0 && lead < 0xf5 ? 4
                                                           : 0;
  if (length == 0) return 0;
  // the second byte's range keeps out long forms, surrogates and what lies beyond U+10FFFF
  unsigned char low = 0x80, high = 0xbf;
  if (lead == 0xe0) low = 0xa0;
  if (lead == 0xed) high = 0x9f;
  if (lead == 0xf0) low = 0x90;
  if (lead == 0xf4) high = 0x8f;
  for (std::size_t i = 1; i < length; ++i, low = 0x80, high = 0xbf) {
    if (i >= text.size() || byte(i) < low || byte(i) > high) return 0;
    ++broken;
  }
  return length;
}

/// The line with each broken part of it as U+FFFD, or refused: a JSON parser takes UTF-8 alone.
std::string_view as_utf8(std::string_view line, BrokenUtf8 policy, std::string& replaced) {
  std::size_t whole = 0, broken = 0;
  replaced.clear();
  for (std::size_t at = 0; at < line.size();) {
    const std::size_t length = character_length(line.substr(at), broken);
    if (length == 0) {
      if (policy == BrokenUtf8::kRefuse) throw DataError(format("byte {} of the line is not UTF-8", at + 1));
      replaced.append(line.substr(whole, at - whole)).append("\xef\xbf\xbd");
      whole = at + broken;
    }
    at += length == 0 ? broken : length;
  }
  if (whole == 0) return line;
  replaced.append(line.substr(whole));
  return replaced;
}

std::string text_of_json(std::string_view line, const std::string& key) {
  const auto check = [](int depth, Json::parse_event_t, const Json&) {
    if (depth > kDeepest) throw DataError(format("values are nested deeper than {} levels", kDeepest));
    return true;
  };
  Json object;
  try {
    object = Json::parse(line, check);
  } catch (const Json::parse_error& error) {
    throw DataError(format("not valid JSON at byte {} of the line; one object a line is needed", error.byte));
  } catch (const Json::out_of_range&) {
    throw DataError("a number is too large for 64 bits");
  }
  if (!object.is_object()) throw DataError("a JSON object is needed, with the text under a key");
  const auto found = object.find(key);
  if (found == object.end())
    throw DataError(format("the object has no `{}`; name the key that holds the text", key));
  if (!found->is_string()) throw DataError(format("`{}` is {}, text is needed", key, found->type_name()));
  return found->get<std::string>();
}

/// Calls `use` for each line with its break, if it has one.
void for_each_line(std::string_view text, const std::function<void(std::string_view)>& use) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    use(text.substr(0, end));
    text.remove_prefix(end);
  }
}

class ChunkTokenizer {
 public:
  ChunkTokenizer(const TextRules& rules, const Tokenizer& tokenizer) : rules_(rules), tokenizer_(tokenizer) {}

  void add_line(std::string_view line) {
    if (rules_.sentences == SentenceRule::kWhole) return add_sentence(line);
    const std::string_view content = without_outer_space(line);
    if (content.empty()) return end_document();
    add_content(content);
  }

  void add_json(std::string_view line) {
    if (without_outer_space(line).empty()) return;
    const std::string text = text_of_json(as_utf8(line, rules_.broken, replaced_), rules_.key);
    if (rules_.sentences == SentenceRule::kWhole)
      add_sentence(text);
    else
      for_each_line(text, [&](std::string_view part) { add_content(without_outer_space(part)); });
    end_document();
  }

  TokenizedText finish() { return std::move(made_); }

 private:
  void add_content(std::string_view line) {
    if (rules_.sentences == SentenceRule::kLines) return add_sentence(line);
    for (const std::string_view sentence : split_sentences(line)) add_sentence(sentence);
  }

  void add_sentence(std::string_view sentence) {
    if (sentence.empty()) return;
    const std::size_t before = made_.ids.size();
    tokenizer_.encode(sentence, made_.ids);
    if (made_.ids.size() > before)
      made_.sizes.push_back(static_cast<std::int32_t>(made_.ids.size() - before));
  }

  void end_document() {
    const auto sentences = static_cast<std::int64_t>(made_.sizes.size());
    if (made_.breaks.empty() || made_.breaks.back() != sentences) made_.breaks.push_back(sentences);
  }

  const TextRules& rules_;
  const Tokenizer& tokenizer_;
  TokenizedText made_;
  std::string replaced_;
};

}  // namespace

bool is_json_lines(const fs::path& file) {
  return std::ranges::find(kJsonEndings, ending_of(file)) != kJsonEndings.end();
}

std::vector<fs::path> text_files(const std::vector<fs::path>& places) {
  std::vector<fs::path> files;
  for (const fs::path& place : places) {
    if (!fs::is_directory(place)) {
      files.push_back(place);
      continue;
    }
    std::vector<fs::path> below;
    for (const auto& entry : fs::recursive_directory_iterator(place))
      if (entry.is_regular_file() && is_text_name(entry.path())) below.push_back(entry.path());
    if (below.empty())
      throw DataError(format(
          "{}: no text in this folder; files that end in .txt, .text, .jsonl, .ndjson or .json, packed "
          "with .gz or .zst or not, are looked for",
          place.string()));
    std::ranges::sort(below);
    files.insert(files.end(), below.begin(), below.end());
  }
  for (const fs::path& file : files) check_has_text(file);
  return files;
}

TokenizedText tokenize_chunk(const TextChunk& chunk, const fs::path& file, const TextRules& rules,
                             const Tokenizer& tokenizer) {
  ChunkTokenizer made(rules, tokenizer);
  const bool json = is_json_lines(file);
  std::int64_t number = chunk.first_line;
  for_each_line(chunk.text, [&](std::string_view line) {
    try {
      json ? made.add_json(line) : made.add_line(line);
    } catch (const DataError& error) {
      throw DataError(format("{}:{}: {}", file.string(), number, error.what()));
    }
    ++number;
  });
  return made.finish();
}

void DocumentJoiner::end_document(std::int64_t sentence) {
  if (sentence > bounds_.back()) bounds_.push_back(sentence);
}

void DocumentJoiner::add(std::size_t file, std::int64_t sentences, std::span<const std::int64_t> breaks) {
  if (file != file_) end_document(sentences_);
  file_ = file;
  for (const std::int64_t end : breaks) end_document(sentences_ + end);
  sentences_ += sentences;
}

std::vector<std::int64_t> DocumentJoiner::finish() {
  end_document(sentences_);
  return std::move(bounds_);
}

}  // namespace stoa
