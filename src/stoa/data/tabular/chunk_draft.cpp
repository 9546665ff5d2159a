#include "stoa/data/tabular/chunk_draft.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <system_error>
#include <utility>

#include "stoa/data/tabular/hash.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

// The file: magic, u64 rows, training rows, first row, file, first line; f64 ranges; the fields' values; each
// column's u64 width and values, ids before numbers; u8 labels; a hash of all that. Padded to words.
constexpr std::string_view kMagic = "STOADRA1";
constexpr std::size_t kRowsAtOnce = 1024;  // parsed columns of so many rows stay in the cache

std::span<const std::uint8_t> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

/// Of whole words, in four strands that a CPU works on at once.
std::uint64_t checksum(std::span<const std::uint8_t> bytes) {
  std::array<std::uint64_t, 4> strands{1, 2, 3, 4};
  const std::size_t whole = bytes.size() / sizeof strands * sizeof strands;
  for (std::size_t i = 0; i < whole; i += sizeof strands) {
    std::array<std::uint64_t, 4> words;
    std::memcpy(&words, bytes.data() + i, sizeof words);
    for (std::size_t k = 0; k < strands.size(); ++k)
      strands[k] = hashing::fold(strands[k] ^ words[k], hashing::kSecond) + words[k];
  }
  const auto rest = bytes.subspan(whole);
  std::uint64_t sum = hash64({reinterpret_cast<const char*>(rest.data()), rest.size()}, bytes.size());
  for (const std::uint64_t strand : strands) sum = hash64(strand, sum);
  return sum;
}

/// The rows of a chunk as they are parsed.
struct Columns {
  Columns(const RawLayout& layout, std::size_t rows)
      : ids(layout.fields.size(), std::vector<std::uint32_t>(rows)),
        numbers(layout.numerics.size(), std::vector<double>(rows)),
        labels(rows) {}

  std::vector<std::vector<std::uint32_t>> ids;
  std::vector<std::vector<double>> numbers;
  std::vector<std::uint8_t> labels;
};

/// Values as type To, each passed through `change`.
template <class To, class From, class Change>
void write_column(ByteWriter& writer, std::vector<From>& values, const Change& change) {
  std::vector<To> narrow(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) narrow[i] = static_cast<To>(change(values[i]));
  writer.number<std::uint64_t>(sizeof(To));
  writer.array<To>(narrow);
  writer.pad();
  std::vector<From>().swap(values);
}

/// Ids below `count`, each replaced by that of `changed` where there is any.
void write_ids(ByteWriter& writer, std::vector<std::uint32_t>& ids, std::uint64_t count,
               const std::vector<std::uint32_t>& changed) {
  const auto change = [&](std::uint32_t id) { return changed.empty() ? id : changed[id]; };
  if (count <= 1u << 8) return write_column<std::uint8_t>(writer, ids, change);
  if (count <= 1u << 16) return write_column<std::uint16_t>(writer, ids, change);
  write_column<std::uint32_t>(writer, ids, change);
}

void write_numbers(ByteWriter& writer, std::vector<double>& numbers) {
  const auto same = [](double value) { return value; };
  const bool fit = std::ranges::all_of(
      numbers, [](double value) { return static_cast<double>(static_cast<float>(value)) == value; });
  if (fit) return write_column<float>(writer, numbers, same);
  write_column<double>(writer, numbers, same);
}

/// Parses a chunk into columns, ids numbered by `counters` or hashed.
class ChunkReader {
 public:
  ChunkReader(const PrepareInput& input, const TabularEncoding& encoding, std::int64_t rows)
      : columns(input.layout, static_cast<std::size_t>(rows)),
        counters(encoding.kind == VocabularyKind::kHash ? 0 : input.layout.fields.size()),
        ranges(input.layout.numerics.size(), TabularEncoding::Range::none()),
        input_(input),
        encoding_(encoding) {}

  void read(const TextChunk& chunk) {
    const RowParser parser(input_.layout, input_.files[chunk.file].string());
    ParsedRows rows(input_.layout, kRowsAtOnce);
    std::string_view text = chunk.text;
    for (std::size_t done = 0; !text.empty(); done += rows.rows) {
      text.remove_prefix(parser.parse(text, chunk.first_line + static_cast<std::int64_t>(done), rows));
      add(rows, done, chunk.first_row);
      if (!rows.unquoted.empty()) unquoted_.push_back(std::move(rows.unquoted));
    }
  }

  Columns columns;
  std::vector<KeyCounter> counters;
  std::vector<TabularEncoding::Range> ranges;
  std::int64_t train_rows = 0;

 private:
  void add(const ParsedRows& rows, std::size_t done, std::int64_t first_row) {
    const RawLayout& layout = input_.layout;
    for (std::size_t i = 0; i < rows.rows; ++i) {
      const auto row = first_row + static_cast<std::int64_t>(done + i);
      train_[i] = input_.split.of(row) == TabularSplit::kTrain;
      train_rows += train_[i];
    }
    std::copy_n(rows.labels.begin(), rows.rows, columns.labels.begin() + static_cast<std::ptrdiff_t>(done));
    for (std::size_t m = 0; m < layout.numerics.size(); ++m) {
      const double* const numbers = rows.numbers[layout.numerics[m].column].data();
      double* const to = columns.numbers[m].data() + done;
      auto range = ranges[m];
      for (std::size_t i = 0; i < rows.rows; ++i) {
        to[i] = std::isnan(numbers[i]) ? 0 : numbers[i];
        range.widen(to[i]);
      }
      ranges[m] = range;
    }
    for (std::size_t f = 0; f < layout.fields.size(); ++f) add_field(rows, f, columns.ids[f].data() + done);
  }

  void add_field(const ParsedRows& rows, std::size_t f, std::uint32_t* ids) {
    const RawLayout& layout = input_.layout;
    const std::uint64_t* keys = field_keys(layout, layout.fields[f], rows, input_.joins, scratch_, texts_);
    if (counters.empty()) {
      for (std::size_t i = 0; i < rows.rows; ++i)
        ids[i] = hashed_id(keys[i], encoding_.hash_seed, f, encoding_.sizes[f]);
      return;
    }
    const bool train_only = encoding_.kind == VocabularyKind::kThreshold;
    counters[f].add({keys, rows.rows}, texts_.empty() ? nullptr : texts_.data(),
                    train_only ? train_.data() : nullptr, ids);
  }

  const PrepareInput& input_;
  const TabularEncoding& encoding_;
  std::array<std::uint8_t, kRowsAtOnce> train_;
  std::vector<std::uint64_t> scratch_;
  std::vector<std::string_view> texts_;
  // texts are looked at again when the counters finish: quoted ones must live as long
  std::vector<std::vector<std::unique_ptr<std::string>>> unquoted_;
};

}  // namespace

ChunkDraft ChunkDraft::make(const PrepareInput& input, const TabularEncoding& encoding,
                            const TextChunk& chunk) {
  ChunkReader reader(input, encoding, chunk.rows);
  reader.read(chunk);
  ByteWriter writer;
  writer.reserve(chunk.text.size());  // about as much
  writer.bytes(kMagic.data(), kMagic.size());
  for (const std::int64_t number : {chunk.rows, reader.train_rows, chunk.first_row,
                                    static_cast<std::int64_t>(chunk.file), chunk.first_line})
    writer.number(number);
  for (const auto& range : reader.ranges) {
    writer.number(range.low);
    writer.number(range.high);
  }
  std::vector<std::vector<std::uint32_t>> places(reader.columns.ids.size());
  std::vector<std::uint64_t> counts(places.size());
  for (std::size_t f = 0; f < places.size(); ++f) {
    KeyRun run = reader.counters.empty() ? KeyRun() : reader.counters[f].finish(&places[f]);
    counts[f] = reader.counters.empty() ? static_cast<std::uint64_t>(encoding.sizes[f]) : run.size();
    run.write(writer);
    writer.pad();
  }
  for (std::size_t f = 0; f < places.size(); ++f)
    write_ids(writer, reader.columns.ids[f], counts[f], places[f]);
  for (auto& numbers : reader.columns.numbers) write_numbers(writer, numbers);
  writer.array<std::uint8_t>(reader.columns.labels);
  writer.pad();
  writer.number(checksum(as_bytes(writer.text())));
  ChunkDraft draft;
  draft.made_ = std::make_shared<const std::string>(writer.take());
  if (!draft.parse(as_bytes(*draft.made_), input.layout, "draft")) throw Error("a draft is not whole");
  return draft;
}

std::optional<ChunkDraft> ChunkDraft::open(const fs::path& file, const RawLayout& layout) {
  if (!fs::exists(file)) return std::nullopt;
  ChunkDraft draft;
  draft.mapped_ = std::make_shared<const MappedFile>(file);
  try {
    const auto bytes = draft.mapped_->bytes();
    if (bytes.size() < 8 || bytes.size() % 8 != 0) return std::nullopt;
    const auto written = ByteReader(bytes.last(8), file.string()).number<std::uint64_t>();
    if (written != checksum(bytes.first(bytes.size() - 8)) || !draft.parse(bytes, layout, file.string()))
      return std::nullopt;
    return draft;
  } catch (const DataError&) {
    return std::nullopt;
  }
}

void ChunkDraft::write(const fs::path& file) const {
  std::ofstream out(file, std::ios::binary);
  out.write(made_->data(), static_cast<std::streamsize>(made_->size()));
  out.close();
  if (!out)
    throw IoError(format("cannot write {}: {}", file.string(), std::generic_category().message(errno)));
}

bool ChunkDraft::parse(std::span<const std::uint8_t> bytes, const RawLayout& layout,
                       const std::string& name) {
  ByteReader reader(bytes, name);
  const auto magic = reader.take(kMagic.size());
  if (!std::equal(magic.begin(), magic.end(), kMagic.begin())) return false;
  for (std::int64_t* number : {&rows, &train_rows, &first_row, &file, &first_line})
    *number = reader.number<std::int64_t>();
  for (std::size_t m = 0; m < layout.numerics.size(); ++m) {
    const auto low = reader.number<double>();
    ranges.push_back({low, reader.number<double>()});
  }
  for (std::size_t f = 0; f < layout.fields.size(); ++f) {
    values.push_back(KeyRun::read(reader));
    reader.skip_padding();
  }
  const auto count = static_cast<std::uint64_t>(rows);
  const auto column = [&](std::initializer_list<std::uint64_t> widths) {
    const auto width = reader.number<std::uint64_t>();
    if (std::ranges::find(widths, width) == widths.end() || count > reader.left() / width) reader.fail();
    const Column found{width, reader.take(count * width)};
    reader.skip_padding();
    return found;
  };
  for (std::size_t f = 0; f < layout.fields.size(); ++f) ids_.push_back(column({1, 2, 4}));
  for (std::size_t m = 0; m < layout.numerics.size(); ++m) numbers_.push_back(column({4, 8}));
  labels = reader.take(count);
  reader.skip_padding();
  return reader.left() == 8;
}

namespace {

template <class From>
void map_ids(std::span<const std::uint8_t> bytes, std::span<const std::uint32_t> ids, std::uint32_t* to) {
  const std::span from(reinterpret_cast<const From*>(bytes.data()), bytes.size() / sizeof(From));
  if (ids.empty()) {
    std::ranges::copy(from, to);
    return;
  }
  for (const From id : from) {
    if (id >= ids.size()) throw DataError("a draft of prepared rows is damaged; prepare the data again");
    *to++ = ids[id];
  }
}

}  // namespace

void ChunkDraft::read_ids(std::size_t field, std::span<const std::uint32_t> ids, std::uint32_t* to) const {
  const Column& column = ids_[field];
  if (column.width == 1) return map_ids<std::uint8_t>(column.bytes, ids, to);
  if (column.width == 2) return map_ids<std::uint16_t>(column.bytes, ids, to);
  map_ids<std::uint32_t>(column.bytes, ids, to);
}

void ChunkDraft::read_numbers(std::size_t numeric, double* to) const {
  const auto& [width, bytes] = numbers_[numeric];
  if (width == 4)
    std::copy_n(reinterpret_cast<const float*>(bytes.data()), rows, to);
  else
    std::copy_n(reinterpret_cast<const double*>(bytes.data()), rows, to);
}

}  // namespace stoa
