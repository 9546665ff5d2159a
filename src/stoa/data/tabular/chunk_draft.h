#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "stoa/base/files.h"
#include "stoa/data/tabular/folder.h"
#include "stoa/data/tabular/passes.h"
#include "stoa/data/tabular/text_stream.h"

namespace stoa {

/// What the first pass makes of a chunk of text, so that the second need not look at the text again: the
/// chunk's distinct values, and its rows as columns. An id is the place of its value among the chunk's own;
/// with hashed vocabularies it is the final one and there are no values.
class ChunkDraft {
 public:
  /// Parses a chunk. `encoding` has the kind of vocabulary and, with kHash, seed and sizes. Throws DataError.
  static ChunkDraft make(const PrepareInput& input, const TabularEncoding& encoding, const TextChunk& chunk);
  /// The draft of a file, or nothing where it is absent or not whole: then the chunk is parsed again.
  static std::optional<ChunkDraft> open(const std::filesystem::path& file, const RawLayout& layout);
  /// Writes it for open(). Not flushed to the disk: what a crash spoils is not whole, and made again.
  void write(const std::filesystem::path& file) const;

  std::int64_t rows = 0, train_rows = 0;
  std::int64_t first_row = 0;                  ///< over all files
  std::int64_t file = 0, first_line = 0;       ///< where the chunk begins
  std::vector<TabularEncoding::Range> ranges;  ///< of each numeric, empty cells as 0
  std::vector<KeyRun> values;                  ///< of each field
  std::span<const std::uint8_t> labels;

  /// to[i] = ids[id of row i] for the rows of one field; the ids themselves where `ids` is empty.
  void read_ids(std::size_t field, std::span<const std::uint32_t> ids, std::uint32_t* to) const;
  void read_numbers(std::size_t numeric, double* to) const;

 private:
  /// Values of one column, as narrow as they all fit: u8, u16 or u32 ids, fp32 or fp64 numbers.
  struct Column {
    std::uint64_t width = 0;
    std::span<const std::uint8_t> bytes;
  };
  bool parse(std::span<const std::uint8_t> bytes, const RawLayout& layout, const std::string& name);

  std::shared_ptr<const std::string> made_;   // the bytes of what was made,
  std::shared_ptr<const MappedFile> mapped_;  // or of a file
  std::vector<Column> ids_, numbers_;
};

}  // namespace stoa
