#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "stoa/data/text/documents.h"
#include "stoa/data/text/prepared_text.h"

namespace stoa {

/// What `stoa data prepare text` does.
struct PrepareTextOptions {
  std::vector<std::filesystem::path> inputs;  ///< files and folders
  std::filesystem::path out;
  std::shared_ptr<const Tokenizer> tokenizer;
  TextRules rules;
  int threads = 0;                       ///< 0 is one a core
  bool overwrite = false;                ///< remove prepared text in `out` first
  std::size_t chunk_bytes = kTextChunk;  ///< text that one part is made of
};

/// Tokenises text into a folder and returns it. Parts that an earlier, interrupted call with the same options
/// finished are used again; where all is finished already, nothing is done. Throws DataError (file and line
/// of what does not fit), ConfigError (options, a folder that holds something else), IoError (a full disk,
/// for example; what is finished stays), Interrupted.
PreparedText prepare_text(const PrepareTextOptions& options);

}  // namespace stoa
