#include "stoa/data/tabular/passes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/progress.h"
#include "stoa/data/parallel.h"
#include "stoa/data/tabular/chunk_draft.h"
#include "stoa/data/tabular/row_file.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

std::string chunk_file(const char* kind, std::int64_t chunk) {
  return format("{}-{:06}.bin", kind, chunk);
}

fs::path draft_file(const PrepareInput& input, std::int64_t chunk) {
  return input.out / kWorkFolder / chunk_file("draft", chunk);
}

/// The rows of a chunk, by split.
using SplitColumns = std::array<RowColumns, 3>;

/// Rows of a draft with their final ids and scaled numbers.
class DraftEncoder {
 public:
  DraftEncoder(const PrepareInput& input, const TabularEncoding& encoding, const ChunkDraft& draft)
      : input_(input), encoding_(encoding), draft_(draft) {
    for (std::int64_t i = 0; i < draft.rows; ++i)
      rows_[static_cast<std::size_t>(input.split.of(draft.first_row + i))].push_back(
          static_cast<std::uint32_t>(i));
  }

  SplitColumns encode() const {
    SplitColumns columns;
    std::vector<std::uint32_t> own, ids(static_cast<std::size_t>(draft_.rows));
    for (std::size_t f = 0; f < encoding_.sizes.size(); ++f) {
      find_ids(f, own);
      draft_.read_ids(f, own, ids.data());
      for (std::size_t s = 0; s < columns.size(); ++s) columns[s].ids.push_back(chosen(ids.data(), s));
    }
    std::vector<double> numbers(ids.size());
    std::vector<float> scaled(ids.size());
    for (std::size_t m = 0; m < encoding_.ranges.size(); ++m) {
      draft_.read_numbers(m, numbers.data());
      for (std::size_t i = 0; i < scaled.size(); ++i) scaled[i] = encoding_.ranges[m].scaled(numbers[i]);
      check_finite(scaled, m);
      for (std::size_t s = 0; s < columns.size(); ++s)
        columns[s].numerics.push_back(chosen(scaled.data(), s));
    }
    for (std::size_t s = 0; s < columns.size(); ++s) columns[s].labels = chosen(draft_.labels.data(), s);
    return columns;
  }

 private:
  /// The ids of the chunk's own values.
  void find_ids(std::size_t f, std::vector<std::uint32_t>& ids) const {
    if (encoding_.kind == VocabularyKind::kHash) return;
    const auto& keys = draft_.values[f].keys;
    ids.resize(keys.size());
    encoding_.values[f]->ids(keys, ids.data());
    if (std::ranges::find(ids, Vocabulary::kAbsent) != ids.end())
      throw DataError(
          format("field `{}`: a value was not there in the first pass; were the files changed meanwhile? "
                 "prepare the data again",
                 input_.layout.fields[f].name));
  }

  void check_finite(const std::vector<float>& scaled, std::size_t numeric) const {
    const auto wrong = std::ranges::find_if(scaled, [](float value) { return !std::isfinite(value); });
    if (wrong == scaled.end()) return;
    const std::size_t column = input_.layout.numerics[numeric].column;
    throw DataError(format("{}:{}, column {} ({}): {}", input_.files.at(draft_.file).string(),
                           draft_.first_line + (wrong - scaled.begin()), column + 1,
                           input_.layout.columns[column].name, kBeyondScale));
  }

  /// The values of a split's rows.
  template <class T>
  std::vector<T> chosen(const T* values, std::size_t split) const {
    std::vector<T> result(rows_[split].size());
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = values[rows_[split][i]];
    return result;
  }

  const PrepareInput& input_;
  const TabularEncoding& encoding_;
  const ChunkDraft& draft_;
  std::array<std::vector<std::uint32_t>, 3> rows_;
};

fs::path part_name(std::size_t split, std::int64_t chunk) {
  return fs::path("data") / chunk_file(split_name(static_cast<TabularSplit>(split)), chunk);
}

/// A row file's header and size, where it is there and whole and of this encoding.
std::optional<PreparedFolder::Part> whole_part(const fs::path& out, const fs::path& name,
                                               const TabularEncoding& encoding, std::uint64_t encoding_id,
                                               std::int64_t& positives) {
  const fs::path file = out / name;
  if (!fs::exists(file)) return std::nullopt;
  try {
    const MappedFile mapped(file);
    const RowFile content = parse_row_file(mapped.bytes(), file.string());
    if (content.encoding != encoding_id || content.fields != encoding.sizes.size() ||
        content.numerics != encoding.ranges.size())
      return std::nullopt;
    for (std::size_t block = 0; block < content.blocks.size(); ++block)
      check_block(content, block, encoding.sizes, file.string());
    positives = static_cast<std::int64_t>(content.positives);
    return PreparedFolder::Part{name.string(), static_cast<std::int64_t>(content.rows),
                                static_cast<std::int64_t>(mapped.bytes().size())};
  } catch (const DataError&) {
    return std::nullopt;
  }
}

/// One chunk's three parts; parts of splits that no row can be of are absent.
struct ChunkParts {
  std::array<std::optional<PreparedFolder::Part>, 3> parts;
  std::array<std::int64_t, 3> positives{};
  bool there = false;
};

class EncodePass {
 public:
  EncodePass(const PrepareInput& input, const TabularEncoding& encoding)
      : input_(input),
        encoding_(encoding),
        id_(std::stoull(encoding.fingerprint().substr(0, 16), nullptr, 16)) {}

  /// Writes the parts of a chunk whose draft is there; without one the chunk is left to finish().
  std::int64_t encode_draft(std::int64_t number) {
    const auto draft = ChunkDraft::open(draft_file(input_, number), input_.layout);
    return draft ? encode(number, *draft) : 0;
  }

  /// Makes sure of a chunk's parts: they are used as they are where whole.
  void encode(const TextChunk& chunk) {
    if (has(chunk.number)) return;
    if (ChunkParts made = find(chunk.number); whole(made, chunk.rows))
      note(chunk.number, std::move(made));
    else if (encode_draft(chunk.number) == 0)
      encode(chunk.number, ChunkDraft::make(input_, encoding_, chunk));
  }

  bool has_all(std::int64_t chunks) const {
    return std::ssize(chunks_) == chunks && std::ranges::all_of(chunks_, &ChunkParts::there);
  }

  /// All chunks' parts in their order; files without rows are removed.
  std::array<PreparedFolder::Split, 3> finish() const {
    std::array<PreparedFolder::Split, 3> splits;
    for (const ChunkParts& chunk : chunks_)
      for (std::size_t s = 0; s < splits.size(); ++s) {
        if (!chunk.parts[s]) continue;
        if (chunk.parts[s]->rows == 0) {
          fs::remove(input_.out / chunk.parts[s]->file);
          continue;
        }
        splits[s].rows += chunk.parts[s]->rows;
        splits[s].positives += chunk.positives[s];
        splits[s].parts.push_back(*chunk.parts[s]);
      }
    return splits;
  }

 private:
  bool wanted(std::size_t split) const { return input_.split.has(static_cast<TabularSplit>(split)); }

  bool has(std::int64_t chunk) {
    const std::lock_guard lock(mutex_);
    return chunk < std::ssize(chunks_) && chunks_[chunk].there;
  }

  void note(std::int64_t chunk, ChunkParts made) {
    const std::lock_guard lock(mutex_);
    if (std::ssize(chunks_) <= chunk) chunks_.resize(chunk + 1);
    chunks_[chunk] = std::move(made);
    chunks_[chunk].there = true;
  }

  std::int64_t encode(std::int64_t number, const ChunkDraft& draft) {
    const SplitColumns columns = DraftEncoder(input_, encoding_, draft).encode();
    ChunkParts made;
    for (std::size_t s = 0; s < columns.size(); ++s) {
      if (!wanted(s)) continue;
      const fs::path name = part_name(s, number);
      write_row_file(input_.out / name, columns[s], id_);
      made.parts[s] = PreparedFolder::Part{name.string(), static_cast<std::int64_t>(columns[s].labels.size()),
                                           static_cast<std::int64_t>(fs::file_size(input_.out / name))};
      made.positives[s] = std::ranges::count(columns[s].labels, std::uint8_t{1});
    }
    note(number, std::move(made));
    fs::remove(draft_file(input_, number));
    return draft.rows;
  }

  ChunkParts find(std::int64_t chunk) const {
    ChunkParts made;
    for (std::size_t s = 0; s < made.parts.size(); ++s)
      if (wanted(s))
        made.parts[s] = whole_part(input_.out, part_name(s, chunk), encoding_, id_, made.positives[s]);
    return made;
  }

  bool whole(const ChunkParts& made, std::int64_t wanted_rows) const {
    std::int64_t rows = 0;
    for (std::size_t s = 0; s < made.parts.size(); ++s) {
      if (wanted(s) && !made.parts[s]) return false;
      if (made.parts[s]) rows += made.parts[s]->rows;
    }
    return rows == wanted_rows;
  }

  const PrepareInput& input_;
  const TabularEncoding& encoding_;
  std::uint64_t id_;
  std::mutex mutex_;
  std::vector<ChunkParts> chunks_;
};

std::string percent_read(const TextStream& stream) {
  return format("{:.0f} % of the input", 100 * stream.share());
}

}  // namespace

TextStream PrepareInput::open() const {
  return TextStream(files, header, static_cast<std::size_t>(chunk_bytes));
}

std::int64_t count_rows(const PrepareInput& input) {
  TextStream stream = input.open();
  Progress progress("counting rows", "rows", 0);
  for_each_chunk(
      stream, [](const TextChunk&) {},
      [&](std::int64_t rows) { progress.update(rows, percent_read(stream)); });
  return stream.rows();
}

CountedInput count_input(const PrepareInput& input, const TabularEncoding& encoding) {
  TextStream stream = input.open();
  Progress progress("first pass", "rows", 0);
  const std::size_t fields = input.layout.fields.size();
  CountedInput counted;
  counted.ranges.resize(input.layout.numerics.size(), TabularEncoding::Range::none());
  std::vector<RunMerger> mergers(fields);
  std::vector<std::mutex> locks(fields);
  std::mutex mutex;
  for_each_chunk(
      stream,
      [&](const TextChunk& chunk) {
        const fs::path file = draft_file(input, chunk.number);
        auto draft = ChunkDraft::open(file, input.layout);
        if (!draft || draft->rows != chunk.rows) {
          draft = ChunkDraft::make(input, encoding, chunk);
          draft->write(file);
        }
        for (std::size_t f = 0; f < fields; ++f) {
          const std::lock_guard lock(locks[f]);
          mergers[f].add(std::move(draft->values[f]));
        }
        const std::lock_guard lock(mutex);
        counted.rows += draft->rows;
        counted.train_rows += draft->train_rows;
        for (std::size_t m = 0; m < counted.ranges.size(); ++m) {
          counted.ranges[m].widen(draft->ranges[m].low);
          counted.ranges[m].widen(draft->ranges[m].high);
        }
      },
      [&](std::int64_t rows) { progress.update(rows, percent_read(stream)); });
  progress.finish();
  counted.chunks = stream.chunks();
  counted.values.resize(fields);
  for_each_parallel(static_cast<std::int64_t>(fields),
                    [&](std::int64_t f) { counted.values[f] = mergers[f].finish(); });
  return counted;
}

std::array<PreparedFolder::Split, 3> encode_input(const PrepareInput& input, const TabularEncoding& encoding,
                                                  std::int64_t rows, std::int64_t chunks) {
  Progress progress("second pass", "rows", rows);
  EncodePass pass(input, encoding);
  std::mutex mutex;
  std::int64_t done = 0;
  for_each_parallel(chunks, [&](std::int64_t chunk) {
    if (interrupted()) throw Interrupted("stopped; the same command goes on from here");
    const std::int64_t encoded = pass.encode_draft(chunk);
    const std::lock_guard lock(mutex);
    progress.update(done += encoded);
  });
  if (chunks == 0 || !pass.has_all(chunks)) {
    TextStream stream = input.open();
    for_each_chunk(
        stream, [&](const TextChunk& chunk) { pass.encode(chunk); },
        [&](std::int64_t passed) { progress.update(passed); });
  }
  progress.finish();
  return pass.finish();
}

void write_counts(const fs::path& out, const PreparedFolder::Split& train,
                  const std::vector<std::int64_t>& sizes) {
  std::vector<std::unique_ptr<MappedFile>> mapped;
  std::vector<RowFile> contents;
  for (const auto& part : train.parts) {
    mapped.push_back(std::make_unique<MappedFile>(out / part.file));
    contents.push_back(parse_row_file(mapped.back()->bytes(), (out / part.file).string()));
  }
  std::vector<std::vector<std::uint32_t>> counts(sizes.size());
  for_each_parallel(static_cast<std::int64_t>(sizes.size()), [&](std::int64_t f) {
    counts[f].resize(static_cast<std::size_t>(sizes[f]));
    for (const RowFile& content : contents) {
      if (interrupted()) throw Interrupted("stopped; the same command goes on from here");
      for (const RowBlock& block : content.blocks)
        for (const std::uint32_t id : std::span(block.ids(static_cast<std::size_t>(f)), block.rows))
          ++counts[f].at(id);
    }
  });
  write_file_atomically(out / kCountsFile, [&](const Append& append) {
    for (const auto& field : counts) append(std::as_bytes(std::span(field)));
  });
}

}  // namespace stoa
