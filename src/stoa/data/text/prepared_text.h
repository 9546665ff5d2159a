#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "stoa/base/json.h"
#include "stoa/data/prepared_folder.h"
#include "stoa/data/text/token_file.h"
#include "stoa/data/text/tokenizer.h"

namespace stoa {

/// File names within a folder of prepared text.
inline constexpr const char* kTextFile = "text.json";
inline constexpr const char* kTokensPrefix = "tokens";

inline constexpr PreparedKind kTextKind = {kTextFile, "stoa-text-1", "text", "stoa data prepare text"};

/// A folder of prepared text: tokens.bin, tokens.idx, the tokenizer's files and text.json, which is written
/// last, so a folder without it is unfinished.
struct PreparedText {
  std::filesystem::path folder;
  std::string kind, fingerprint;  ///< of the tokenizer
  std::int64_t vocabulary = 0;
  std::int64_t documents = 0, sentences = 0, tokens = 0;
  Json command;          ///< inputs and options it was made with
  Json tokenizer_files;  ///< names

  /// Reads and checks text.json and the checksums of all files, that of tokens.bin up to 1 GiB. Throws
  /// DataError, naming the file, where the folder is unfinished or something in it was altered.
  static PreparedText open(const std::filesystem::path& folder);
  /// Writes text.json; all other files must be there.
  void write() const;

  /// The tokens. Throws DataError where they do not belong to text.json.
  std::shared_ptr<const TokenFile> token_file() const;
  /// The tokenizer whose files are in the folder. Throws DataError where it is not the one of the tokens.
  std::shared_ptr<const Tokenizer> load_tokenizer() const;
  /// Throws DataError unless the tokens are of this tokenizer.
  void check_tokenizer(const Tokenizer& tokenizer) const;
};

/// Whether there is prepared text in a folder, or an unfinished preparation of text.
bool is_prepared_text(const std::filesystem::path& folder);

}  // namespace stoa
