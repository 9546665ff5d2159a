#include "stoa/data/tabular/passes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <mutex>
#include <utility>

#include "stoa/base/checksum.h"
#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/progress.h"
#include "stoa/data/parallel.h"
#include "stoa/data/tabular/row_file.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kRowsAtOnce = 4096;  // parsed columns of so many rows stay in the cache

std::string chunk_file(const char* kind, std::int64_t chunk) {
  return format("{}-{:06}.bin", kind, chunk);
}

/// What one chunk gives the first pass.
struct ChunkCounts {
  std::uint64_t rows = 0, train_rows = 0;
  std::vector<TabularEncoding::Range> ranges;
  std::vector<KeyRun> values;
};

std::string to_bytes(const ChunkCounts& counts) {
  ByteWriter writer;
  writer.number(counts.rows);
  writer.number(counts.train_rows);
  for (const auto& range : counts.ranges) {
    writer.number(range.low);
    writer.number(range.high);
  }
  for (const KeyRun& run : counts.values) run.write(writer);
  const std::string& text = writer.text();
  const std::uint32_t crc = crc32({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  writer.number(crc);
  return writer.text();
}

/// The counts of a file, or nothing where it is absent or not whole: then the chunk is counted again.
std::optional<ChunkCounts> read_chunk_counts(const fs::path& file, std::size_t numerics, std::size_t fields) {
  if (!fs::exists(file)) return std::nullopt;
  try {
    const MappedFile mapped(file);
    const auto bytes = mapped.bytes();
    if (bytes.size() < 4) return std::nullopt;
    const auto content = bytes.first(bytes.size() - 4);
    if (ByteReader(bytes.last(4), file.string()).number<std::uint32_t>() != crc32(content))
      return std::nullopt;
    ByteReader reader(content, file.string());
    ChunkCounts counts;
    counts.rows = reader.number<std::uint64_t>();
    counts.train_rows = reader.number<std::uint64_t>();
    for (std::size_t i = 0; i < numerics; ++i) {
      const double low = reader.number<double>();
      counts.ranges.push_back({low, reader.number<double>()});
    }
    for (std::size_t i = 0; i < fields; ++i) counts.values.push_back(KeyRun::read(reader));
    if (reader.left() > 0) return std::nullopt;
    return counts;
  } catch (const DataError&) {
    return std::nullopt;
  }
}

/// Calls `use` for each batch of parsed rows of a chunk, with the number of its first row.
template <class Use>
void parse_chunk(const PrepareInput& input, const TextChunk& chunk, const Use& use) {
  const RowParser parser(input.layout, input.files[chunk.file].string());
  ParsedRows rows(input.layout, kRowsAtOnce);
  std::string_view text = chunk.text;
  for (std::int64_t done = 0; !text.empty(); done += static_cast<std::int64_t>(rows.rows)) {
    text.remove_prefix(parser.parse(text, chunk.first_line + done, rows));
    use(rows, chunk.first_row + done);
  }
}

void widen(TabularEncoding::Range& range, double value) {
  range.low = std::min(range.low, value);
  range.high = std::max(range.high, value);
}

std::vector<TabularEncoding::Range> no_ranges(std::size_t count) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  return std::vector<TabularEncoding::Range>(count, {kInfinity, -kInfinity});
}

ChunkCounts count_chunk(const PrepareInput& input, const TextChunk& chunk, bool with_values,
                        bool train_only) {
  const RawLayout& layout = input.layout;
  ChunkCounts counts;
  counts.ranges = no_ranges(layout.numerics.size());
  std::vector<KeyCounter> counters(with_values ? layout.fields.size() : 0);
  std::vector<std::uint64_t> scratch;
  std::vector<std::string_view> texts;
  std::vector<std::uint8_t> train(kRowsAtOnce);
  // texts are looked at again when the counters finish: quoted ones must live as long
  std::vector<std::vector<std::unique_ptr<std::string>>> unquoted;
  parse_chunk(input, chunk, [&](ParsedRows& rows, std::int64_t first_row) {
    for (std::size_t i = 0; i < rows.rows; ++i)
      train[i] = input.split.of(first_row + static_cast<std::int64_t>(i)) == TabularSplit::kTrain;
    counts.rows += rows.rows;
    counts.train_rows += static_cast<std::uint64_t>(
        std::count(train.begin(), train.begin() + static_cast<std::ptrdiff_t>(rows.rows), 1));
    for (std::size_t m = 0; m < layout.numerics.size(); ++m) {
      const auto& numbers = rows.numbers[layout.numerics[m].column];
      for (std::size_t i = 0; i < rows.rows; ++i)
        widen(counts.ranges[m], std::isnan(numbers[i]) ? 0 : numbers[i]);
    }
    for (std::size_t f = 0; f < counters.size(); ++f) {
      const std::uint64_t* keys = field_keys(layout, layout.fields[f], rows, input.joins, scratch, texts);
      counters[f].add({keys, rows.rows}, texts.empty() ? nullptr : texts.data(),
                      train_only ? train.data() : nullptr);
    }
    if (!rows.unquoted.empty()) unquoted.push_back(std::move(rows.unquoted));
  });
  for (KeyCounter& counter : counters) counts.values.push_back(counter.finish());
  return counts;
}

/// The rows of a chunk, by split.
using SplitColumns = std::array<RowColumns, 3>;

class ChunkEncoder {
 public:
  ChunkEncoder(const PrepareInput& input, const TabularEncoding& encoding)
      : input_(input), encoding_(encoding) {
    for (RowColumns& columns : columns_) {
      columns.ids.resize(encoding.sizes.size());
      columns.numerics.resize(encoding.ranges.size());
    }
  }

  SplitColumns encode(const TextChunk& chunk) {
    parse_chunk(input_, chunk,
                [&](ParsedRows& rows, std::int64_t first_row) { add(chunk, rows, first_row); });
    return std::move(columns_);
  }

 private:
  void add(const TextChunk& chunk, const ParsedRows& rows, std::int64_t first_row) {
    const RawLayout& layout = input_.layout;
    for (auto& places : places_) places.clear();
    for (std::size_t i = 0; i < rows.rows; ++i)
      places_[static_cast<std::size_t>(input_.split.of(first_row + static_cast<std::int64_t>(i)))].push_back(
          i);
    ids_.resize(rows.rows);
    for (std::size_t f = 0; f < layout.fields.size(); ++f) {
      find_ids(rows, f);
      for (std::size_t s = 0; s < columns_.size(); ++s)
        for (const std::size_t i : places_[s]) columns_[s].ids[f].push_back(ids_[i]);
    }
    for (std::size_t m = 0; m < layout.numerics.size(); ++m) {
      const std::size_t column = layout.numerics[m].column;
      for (std::size_t s = 0; s < columns_.size(); ++s)
        for (const std::size_t i : places_[s]) {
          const float scaled = encoding_.ranges[m].scaled(rows.numbers[column][i]);
          if (!std::isfinite(scaled))
            throw DataError(
                format("{}:{}, column {} ({}): {}", input_.files[chunk.file].string(),
                       chunk.first_line + first_row - chunk.first_row + static_cast<std::int64_t>(i),
                       column + 1, layout.columns[column].name, kBeyondScale));
          columns_[s].numerics[m].push_back(scaled);
        }
    }
    for (std::size_t s = 0; s < columns_.size(); ++s)
      for (const std::size_t i : places_[s]) columns_[s].labels.push_back(rows.labels[i]);
  }

  void find_ids(const ParsedRows& rows, std::size_t f) {
    const RawLayout& layout = input_.layout;
    const std::uint64_t* keys = field_keys(layout, layout.fields[f], rows, input_.joins, scratch_, texts_);
    if (encoding_.kind == VocabularyKind::kHash) {
      for (std::size_t i = 0; i < rows.rows; ++i)
        ids_[i] = hashed_id(keys[i], encoding_.hash_seed, f, encoding_.sizes[f]);
      return;
    }
    encoding_.values[f]->ids({keys, rows.rows}, ids_.data());
    if (std::ranges::find(ids_, Vocabulary::kAbsent) != ids_.end())
      throw DataError(
          format("field `{}`: a value was not there in the first pass; were the files changed meanwhile? "
                 "prepare the data again",
                 layout.fields[f].name));
  }

  const PrepareInput& input_;
  const TabularEncoding& encoding_;
  SplitColumns columns_;
  std::array<std::vector<std::size_t>, 3> places_;
  std::vector<std::uint32_t> ids_;
  std::vector<std::uint64_t> scratch_;
  std::vector<std::string_view> texts_;
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
};

class EncodePass {
 public:
  EncodePass(const PrepareInput& input, const TabularEncoding& encoding)
      : input_(input),
        encoding_(encoding),
        id_(std::stoull(encoding.fingerprint().substr(0, 16), nullptr, 16)) {}

  void encode(const TextChunk& chunk) {
    ChunkParts made = find(chunk);
    if (!whole(made, chunk)) {
      const SplitColumns columns = ChunkEncoder(input_, encoding_).encode(chunk);
      for (std::size_t s = 0; s < columns.size(); ++s) {
        if (!wanted(s)) continue;
        const fs::path name = part_name(s, chunk.number);
        write_row_file(input_.out / name, columns[s], id_);
        made.parts[s] =
            PreparedFolder::Part{name.string(), static_cast<std::int64_t>(columns[s].labels.size()),
                                 static_cast<std::int64_t>(fs::file_size(input_.out / name))};
        made.positives[s] = std::ranges::count(columns[s].labels, std::uint8_t{1});
      }
    }
    const std::lock_guard lock(mutex_);
    if (chunks_.size() <= static_cast<std::size_t>(chunk.number)) chunks_.resize(chunk.number + 1);
    chunks_[chunk.number] = std::move(made);
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

  ChunkParts find(const TextChunk& chunk) const {
    ChunkParts made;
    for (std::size_t s = 0; s < made.parts.size(); ++s)
      if (wanted(s))
        made.parts[s] = whole_part(input_.out, part_name(s, chunk.number), encoding_, id_, made.positives[s]);
    return made;
  }

  bool whole(const ChunkParts& made, const TextChunk& chunk) const {
    std::int64_t rows = 0;
    for (std::size_t s = 0; s < made.parts.size(); ++s) {
      if (wanted(s) && !made.parts[s]) return false;
      if (made.parts[s]) rows += made.parts[s]->rows;
    }
    return rows == chunk.rows;
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

CountedInput count_input(const PrepareInput& input, bool with_values, bool train_only) {
  TextStream stream = input.open();
  Progress progress("first pass", "rows", 0);
  const std::size_t fields = with_values ? input.layout.fields.size() : 0;
  CountedInput counted;
  counted.ranges = no_ranges(input.layout.numerics.size());
  std::vector<RunMerger> mergers(fields);
  std::vector<std::mutex> locks(fields);
  std::mutex mutex;
  for_each_chunk(
      stream,
      [&](const TextChunk& chunk) {
        const fs::path file = input.out / kWorkFolder / chunk_file("counts", chunk.number);
        auto counts = read_chunk_counts(file, counted.ranges.size(), fields);
        if (!counts || counts->rows != static_cast<std::uint64_t>(chunk.rows)) {
          counts = count_chunk(input, chunk, with_values, train_only);
          write_file_atomically(file, to_bytes(*counts));
        }
        for (std::size_t f = 0; f < fields; ++f) {
          const std::lock_guard lock(locks[f]);
          mergers[f].add(std::move(counts->values[f]));
        }
        const std::lock_guard lock(mutex);
        counted.rows += static_cast<std::int64_t>(counts->rows);
        counted.train_rows += static_cast<std::int64_t>(counts->train_rows);
        for (std::size_t m = 0; m < counted.ranges.size(); ++m) {
          widen(counted.ranges[m], counts->ranges[m].low);
          widen(counted.ranges[m], counts->ranges[m].high);
        }
      },
      [&](std::int64_t rows) { progress.update(rows, percent_read(stream)); });
  progress.finish();
  counted.values.resize(fields);
  for_each_parallel(static_cast<std::int64_t>(fields),
                    [&](std::int64_t f) { counted.values[f] = mergers[f].finish(); });
  return counted;
}

std::array<PreparedFolder::Split, 3> encode_input(const PrepareInput& input, const TabularEncoding& encoding,
                                                  std::int64_t rows) {
  TextStream stream = input.open();
  Progress progress("second pass", "rows", rows);
  EncodePass pass(input, encoding);
  for_each_chunk(
      stream, [&](const TextChunk& chunk) { pass.encode(chunk); },
      [&](std::int64_t done) { progress.update(done); });
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
