#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "stoa/data/tabular/folder.h"
#include "stoa/data/tabular/prepare.h"
#include "stoa/data/tabular/text_stream.h"

namespace stoa {

/// What both passes over the input share.
struct PrepareInput {
  RawLayout layout;
  Joins joins;
  std::vector<std::filesystem::path> files;
  std::string header;  ///< first line of each file, or empty
  std::int64_t chunk_bytes = 0;
  RowSplit split;
  std::filesystem::path out;

  TextStream open() const;
};

/// What the first pass finds.
struct CountedInput {
  std::int64_t rows = 0, train_rows = 0, chunks = 0;
  std::vector<TabularEncoding::Range> ranges;  ///< of each numeric, over all rows, empty cells as 0
  std::vector<KeyRun> values;                  ///< of each field; empty with hashed ids
};

/// Number of rows, without a look at them.
std::int64_t count_rows(const PrepareInput& input);

/// First pass: distinct values and ranges. `encoding` has the kind of vocabulary and, with kHash, seed and
/// sizes; with kThreshold values are counted in training rows alone. Each chunk's draft is kept in the work
/// folder and used again.
CountedInput count_input(const PrepareInput& input, const TabularEncoding& encoding);

/// Second pass: writes the row files of all chunks and returns the three splits' parts, those without rows
/// left out. The first `chunks` drafts are taken as the first pass left them; only where one is missing the
/// text is read again. Chunks whose files are there and whole are not written again.
std::array<PreparedFolder::Split, 3> encode_input(const PrepareInput& input, const TabularEncoding& encoding,
                                                  std::int64_t rows, std::int64_t chunks);

/// The content of the counts file: how often each id occurs in the training parts.
void write_counts(const std::filesystem::path& out, const PreparedFolder::Split& train,
                  const std::vector<std::int64_t>& sizes);

}  // namespace stoa
