#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "stoa/data/tabular/text_stream.h"
#include "stoa/data/text/tokenizer.h"

namespace stoa {

/// What a line of text is.
enum class SentenceRule {
  kLines,  ///< a sentence; blank lines part documents
  kSplit,  ///< a paragraph, cut by split_sentences(); blank lines part documents
  kWhole,  ///< kept with its line break, blank ones too: a file (of JSON lines: a text) is one document as it
           ///< is
};

/// How files become documents and sentences.
struct TextRules {
  SentenceRule sentences = SentenceRule::kLines;
  std::string key = "text";                  ///< of JSON lines: the member that holds a document's text
  BrokenUtf8 broken = BrokenUtf8::kReplace;  ///< of JSON lines; other text is left to the tokenizer
};

/// Text that is read at a time and, while data are prepared, kept as one part.
inline constexpr std::size_t kTextChunk = std::size_t{1} << 22;

/// Whether a file's name says that each of its lines is a JSON object: .jsonl, .ndjson or .json, packed or
/// not.
bool is_json_lines(const std::filesystem::path& file);

/// The files that some places name; of folders, all .txt, .text, .jsonl, .ndjson and .json files below them,
/// packed (.gz, .zst) or not, by name. Throws IoError or DataError for a place that is not there, and
/// DataError for a folder without such files and for a file with nothing in it but white space.
std::vector<std::filesystem::path> text_files(const std::vector<std::filesystem::path>& places);

/// Token ids of the sentences of a piece of text.
struct TokenizedText {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> sizes;   ///< tokens of each sentence, at least 1
  std::vector<std::int64_t> breaks;  ///< a document ends behind so many of the sentences; rising
};

/// Tokenises a chunk of `file`. Sentences without tokens are left out. Throws DataError naming file and line.
TokenizedText tokenize_chunk(const TextChunk& chunk, const std::filesystem::path& file,
                             const TextRules& rules, const Tokenizer& tokenizer);

/// Joins the documents of pieces that are added in their order. Documents without sentences are left out.
class DocumentJoiner {
 public:
  /// `file` is the place of the piece's file in the list of files: a document ends where it changes.
  void add(std::size_t file, std::int64_t sentences, std::span<const std::int64_t> breaks);
  /// Sentences before each document, and their number: Megatron's document index.
  std::vector<std::int64_t> finish();
  std::int64_t sentences() const { return sentences_; }

 private:
  void end_document(std::int64_t sentence);

  std::vector<std::int64_t> bounds_ = {0};
  std::int64_t sentences_ = 0;
  std::size_t file_ = 0;
};

}  // namespace stoa
