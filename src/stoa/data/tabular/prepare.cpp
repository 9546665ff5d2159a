#include "stoa/data/tabular/prepare.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/text.h"
#include "stoa/data/parallel.h"
#include "stoa/data/tabular/movielens.h"
#include "stoa/data/tabular/passes.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFirstPassFile = "first-pass.json";  // written once the vocabularies are there

const std::vector<std::string> kSources = {"criteo", "avazu", "csv", "movielens"};

/// The options that were left to the source, filled in, and nothing that cannot be.
struct Settings {
  VocabularyKind kind = VocabularyKind::kExact;
  std::int64_t min_count = 1;
  std::string split;
};

Settings settle(const PrepareOptions& options) {
  if (std::ranges::find(kSources, options.source) == kSources.end())
    throw ConfigError(
        format("unknown kind of data `{}`{}", options.source, suggestion(options.source, kSources)));
  if (options.inputs.empty()) throw ConfigError("name the raw files to prepare");
  if (options.out.empty()) throw ConfigError("name the folder to write with --out");
  if (options.source == "csv" && options.table_schema.empty())
    throw ConfigError("csv needs --schema FILE, a TOML file that names the columns (docs/formats.md)");
  if (options.source != "csv" && !options.table_schema.empty())
    throw ConfigError(format("--schema is for csv; the columns of {} are known", options.source));
  if (options.buckets < 1 || options.buckets > 2'000'000'000)
    throw ConfigError(format("--buckets {}: must be 1 to 2,000,000,000", options.buckets));
  if (options.min_count.value_or(1) < 1)
    throw ConfigError(format("--min-count {}: must be at least 1", *options.min_count));
  Settings settings;
  settings.kind = options.vocabulary.value_or(options.bars || options.min_count ? VocabularyKind::kThreshold
                                                                                : VocabularyKind::kExact);
  if (options.min_count && settings.kind != VocabularyKind::kThreshold)
    throw ConfigError("--min-count is for --vocabulary threshold");
  if (settings.kind == VocabularyKind::kThreshold)
    settings.min_count = options.min_count.value_or(options.source == "avazu" ? 2 : 10);
  settings.split = !options.split.empty() ? options.split : options.bars ? "8:1:1" : "random";
  return settings;
}

class Preparation {
 public:
  explicit Preparation(const PrepareOptions& options) : options_(options), settings_(settle(options)) {
    if (!options.vocabulary_of.empty()) take_vocabulary(PreparedFolder::open(options.vocabulary_of));
  }

  PreparedFolder run() {
    PrepareInput input{{},
                       {},
                       options_.inputs,
                       "",
                       options_.chunk_bytes,
                       RowSplit(settings_.split, options_.source, options_.seed),
                       options_.out};
    read_layout(input);
    command_ = command(input);
    if (fs::exists(options_.out) && !fs::is_directory(options_.out))
      throw ConfigError(format("--out {}: it is a file; name a folder", options_.out.string()));
    fs::create_directories(options_.out);
    const FileLock lock(options_.out / kLockFile);
    if (claim()) return PreparedFolder::open(options_.out);
    fs::create_directories(options_.out / "data");
    remove_temporaries(options_.out / "data");
    if (input.split.needs_total()) input.split.set_total(count_rows(input));
    const TabularEncoding encoding = first_pass(input);
    PreparedFolder made{options_.out, encoding, encoding.fingerprint(), {}, command_, {}};
    made.splits = encode_input(input, encoding, rows_, drafts_);
    write_counts(options_.out, made.splits[0], encoding.sizes);
    if (input_entries(read_files_) != command_.at("inputs"))
      throw DataError("the input was changed while it was read; prepare it again with --overwrite");
    made.write();
    fs::remove_all(work());
    return PreparedFolder::open(options_.out);
  }

 private:
  fs::path work() const { return options_.out / kWorkFolder; }

  // Kind and size of a vocabulary that grows are those it has.
  void take_vocabulary(PreparedFolder folder) {
    before_ = std::move(folder);
    const TabularEncoding& encoding = before_->encoding;
    if (options_.vocabulary && *options_.vocabulary != encoding.kind)
      throw ConfigError(format("--vocabulary {}: {} has a vocabulary of kind {}",
                               vocabulary_kind_name(*options_.vocabulary), before_->folder.string(),
                               vocabulary_kind_name(encoding.kind)));
    if (options_.min_count && encoding.kind != VocabularyKind::kThreshold)
      throw ConfigError(format("--min-count is for a vocabulary by threshold; that of {} is of kind {}",
                               before_->folder.string(), vocabulary_kind_name(encoding.kind)));
    settings_.kind = encoding.kind;
    settings_.min_count = options_.min_count.value_or(encoding.min_count);
  }

  void read_layout(PrepareInput& input) {
    if (options_.source == "movielens") {
      if (options_.inputs.size() != 1) throw ConfigError("movielens takes one folder, or one ratings file");
      const MovieLensFiles files = find_movielens(options_.inputs[0]);
      input.files = {files.ratings};
      input.joins = read_movies(files.movies);
      read_files_.push_back(files.movies);
    }
    read_files_.insert(read_files_.end(), input.files.begin(), input.files.end());
    const std::string first = input.files[0].string();
    const std::string header = options_.source == "criteo" ? "" : first_line(input.files[0]);
    if (options_.source == "criteo") input.layout = criteo_layout(options_.bars);
    if (options_.source == "avazu") input.layout = avazu_layout(options_.bars, header, first);
    if (options_.source == "movielens") input.layout = movielens_layout(header, first);
    if (options_.source == "csv")
      input.layout = csv_layout(options_.table_schema, options_.bars, header, first);
    if (input.layout.header) input.header = header;
    if (before_ && as_read_back(before_->encoding.layout.to_json()) != as_read_back(input.layout.to_json()))
      throw ConfigError(format(
          "{}: its columns or preprocessing differ from this data's; a vocabulary grows only with data "
          "of the same form",
          before_->folder.string()));
  }

  Json command(const PrepareInput& input) const {
    return {{"inputs", input_entries(read_files_)},
            {"source", options_.source},
            {"preprocess", options_.bars ? "bars" : "official"},
            {"vocabulary", vocabulary_kind_name(settings_.kind)},
            {"min_count", settings_.min_count},
            {"buckets", settings_.kind == VocabularyKind::kHash ? options_.buckets : 0},
            {"split", settings_.split},
            {"seed", options_.seed},
            {"grown_from", before_ ? before_->vocabulary_hash : ""},
            {"chunk_bytes", options_.chunk_bytes},
            {"layout", as_read_back(input.layout.to_json())}};
  }

  bool claim() const {
    return claim_folder({kTabularKind, options_.out, command_, options_.overwrite,
                         [&] { return PreparedFolder::open(options_.out).command; },
                         [&] { remove_prepared(); }});
  }

  void remove_prepared() const {
    const fs::path& out = options_.out;
    std::vector<fs::path> files = {out / kSchemaFile, work() / kCommandFile, out / kCountsFile,
                                   out / kJoinsFile, out / "data"};
    for (const auto& entry : fs::directory_iterator(out))
      if (entry.path().filename().string().starts_with("vocabulary-")) files.push_back(entry.path());
    for (const fs::path& file : files) fs::remove_all(file);
  }

  /// The encoding, from the first pass or as an earlier call left it.
  TabularEncoding first_pass(const PrepareInput& input) {
    const fs::path file = work() / kFirstPassFile;
    TabularEncoding encoding;
    encoding.layout = input.layout;
    encoding.kind = settings_.kind;
    encoding.min_count = settings_.min_count;
    encoding.hash_seed = before_ ? before_->encoding.hash_seed : options_.seed;
    encoding.joins = input.joins;
    encoding.grown_from = before_ ? before_->vocabulary_hash : "";
    if (settings_.kind == VocabularyKind::kHash)
      encoding.sizes = before_ ? before_->encoding.sizes
                               : std::vector<std::int64_t>(input.layout.fields.size(), options_.buckets);
    if (!fs::exists(file)) write_first_pass(input, encoding, file);
    const Json found = read_json(file);
    rows_ = found.at("rows");
    for (const Json& range : found.at("ranges")) encoding.ranges.push_back({range.at(0), range.at(1)});
    if (settings_.kind == VocabularyKind::kHash) return encoding;
    encoding.values.resize(input.layout.fields.size());
    for_each_parallel(std::ssize(encoding.values), [&](std::int64_t f) {
      const auto field = static_cast<std::size_t>(f);
      encoding.values[field] = std::make_shared<const Vocabulary>(options_.out / vocabulary_file(field));
    });
    for (const auto& values : encoding.values) encoding.sizes.push_back(values->size());
    return encoding;
  }

  void write_first_pass(const PrepareInput& input, const TabularEncoding& encoding, const fs::path& file) {
    CountedInput counted = count_input(input, encoding);
    drafts_ = counted.chunks;
    const bool threshold = settings_.kind == VocabularyKind::kThreshold;
    if (settings_.kind == VocabularyKind::kHash) counted.values.clear();
    if (counted.train_rows == 0)
      throw DataError(format("{}: no training rows in {} rows; give more data or another --split",
                             input.files[0].string(), counted.rows));
    if (counted.rows > std::numeric_limits<std::uint32_t>::max())
      throw DataError(format("{} rows; at most 4,294,967,295 can be prepared in one folder", counted.rows));
    for_each_parallel(static_cast<std::int64_t>(counted.values.size()), [&](std::int64_t f) {
      if (interrupted()) throw Interrupted("stopped; the same command goes on from here");
      const CellType type = input.layout.value_type(input.layout.fields[f]);
      const Vocabulary* before = before_ ? before_->encoding.values[f].get() : nullptr;
      write_file_atomically(options_.out / vocabulary_file(f),
                            Vocabulary::build(type, threshold, std::exchange(counted.values[f], {}),
                                              settings_.min_count, before));
    });
    if (!input.joins.names.empty())
      write_file_atomically(options_.out / kJoinsFile, json_text(input.joins.to_json()) + "\n");
    Json ranges = Json::array();
    for (std::size_t m = 0; m < counted.ranges.size(); ++m) {
      const auto& range = before_ ? before_->encoding.ranges[m] : counted.ranges[m];
      if (!std::isfinite(range.high - range.low))
        throw DataError(format("column `{}`: its numbers span more than a double holds; scale them first",
                               input.layout.numerics[m].name));
      ranges.push_back({range.low, range.high});
    }
    write_file_atomically(file, Json{{"rows", counted.rows}, {"ranges", ranges}}.dump() + "\n");
  }

  PrepareOptions options_;
  Settings settings_;
  std::optional<PreparedFolder> before_;
  std::vector<fs::path> read_files_;
  Json command_;
  std::int64_t rows_ = 0, drafts_ = 0;  // drafts of an earlier call are looked for one by one
};

}  // namespace

PreparedFolder prepare_tabular(const PrepareOptions& options) {
  return Preparation(options).run();
}

}  // namespace stoa
