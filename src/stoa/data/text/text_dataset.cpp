#include "stoa/data/text/text_dataset.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/progress.h"
#include "stoa/data/find.h"
#include "stoa/data/tabular/hash.h"
#include "stoa/data/text/prepared_text.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kHeldOut = 201;  // names the hash that chooses documents

std::optional<fs::path> found(const std::string& place) {
  try {
    return find_data(place);
  } catch (const DataError&) {
    return std::nullopt;
  }
}

/// A place of the table [data] and what kind it is.
struct Place {
  enum class Kind { kText, kPrepared, kMegatron } kind = Kind::kText;
  fs::path path;
  std::optional<PreparedText> prepared = {};  // opened once: its checksums are compared
};

Place find_place(const std::string& name, const char* field) {
  if (const auto path = found(name)) {
    if (fs::is_directory(*path) && is_prepared_text(*path))
      return {Place::Kind::kPrepared, *path, PreparedText::open(*path)};
    if (path->extension() == ".idx" || path->extension() == ".bin")
      return {Place::Kind::kMegatron, fs::path(*path).replace_extension()};
    return {Place::Kind::kText, *path};
  }
  if (const auto index = found(token_index_name(name).string()))
    return {Place::Kind::kMegatron, fs::path(*index).replace_extension()};
  throw DataError(format(
      "{}: no such file, folder or prefix; correct `data.{}` or set STOA_DATA to the folder that holds it",
      name, field));
}

std::vector<Place> find_places(const std::vector<std::string>& names, const char* field) {
  std::vector<Place> places;
  for (const std::string& name : names) places.push_back(find_place(name, field));
  for (const Place& place : places)
    if (places.size() > 1 && place.kind != Place::Kind::kText)
      throw ConfigError(
          format("`data.{}`: {} holds tokens; such a place must stand alone", field, place.path.string()));
  return places;
}

std::shared_ptr<const Tokenizer> load(const TextDataOptions& options, const Place& first) {
  if (options.tokenizer == "bytes") return load_tokenizer(options.tokenizer, options.rules.broken);
  if (!options.tokenizer.empty()) {
    const auto place = found(options.tokenizer);
    if (!place)
      throw DataError(
          format("{}: no such file or folder; correct `data.tokenizer` or set STOA_DATA to the folder "
                 "that holds it",
                 options.tokenizer));
    return load_tokenizer(*place, options.rules.broken);
  }
  if (first.kind != Place::Kind::kPrepared)
    throw ConfigError(
        "`data.tokenizer` is empty; name one, as only a folder of `stoa data prepare text` has its own");
  return first.prepared->load_tokenizer();
}

TextDocuments open_places(const std::vector<Place>& places, const TextDataOptions& options,
                          const Tokenizer& tokenizer) {
  std::shared_ptr<const TokenFile> file;
  if (places[0].kind == Place::Kind::kPrepared) {
    const PreparedText& prepared = *places[0].prepared;
    prepared.check_tokenizer(tokenizer);
    file = prepared.token_file();
  } else if (places[0].kind == Place::Kind::kMegatron) {
    file = std::make_shared<const TokenFile>(places[0].path, tokenizer.size());
  } else {
    std::vector<fs::path> paths;
    for (const Place& place : places) paths.push_back(place.path);
    file = tokenize_in_memory(paths, options.rules, tokenizer);
  }
  return all_documents(std::move(file));
}

}  // namespace

std::int64_t TextDocuments::sentences() const {
  std::int64_t sum = 0;
  for (const SentenceRange& document : documents) sum += document.end - document.begin;
  return sum;
}

std::int64_t TextDocuments::tokens() const {
  std::int64_t sum = 0;
  for (std::size_t d = 0; d < documents.size(); ++d) sum += token_end(d) - token_begin(d);
  return sum;
}

std::shared_ptr<const TokenFile> tokenize_in_memory(const std::vector<fs::path>& places,
                                                    const TextRules& rules, const Tokenizer& tokenizer) {
  const std::vector<fs::path> files = text_files(places);
  TextStream stream(files, "", kTextChunk);
  Progress progress("tokenising", "lines", 0);
  std::map<std::int64_t, std::pair<std::size_t, TokenizedText>> pieces;  // file and tokens, by chunk
  std::mutex mutex;
  for_each_chunk(
      stream,
      [&](const TextChunk& chunk) {
        TokenizedText text = tokenize_chunk(chunk, files[chunk.file], rules, tokenizer);
        const std::lock_guard lock(mutex);
        pieces.emplace(chunk.number, std::pair(chunk.file, std::move(text)));
      },
      [&](std::int64_t lines) { progress.update(lines); });
  const TokenType type = token_type_of(tokenizer.size());
  DocumentJoiner joiner;
  std::vector<std::int32_t> sizes;
  std::string tokens;
  for (auto& [number, piece] : pieces) {
    const TokenizedText text = std::move(piece.second);
    joiner.add(piece.first, std::ssize(text.sizes), text.breaks);
    sizes.insert(sizes.end(), text.sizes.begin(), text.sizes.end());
    tokens += token_bytes(type, text.ids);
  }
  return std::make_shared<const TokenFile>(token_index(type, sizes, joiner.finish()), std::move(tokens),
                                           files[0].string(), tokenizer.size());
}

TextDocuments all_documents(std::shared_ptr<const TokenFile> file) {
  TextDocuments all{std::move(file), {}};
  const TokenIndex& index = all.file->index();
  for (std::int64_t d = 0; d < index.documents(); ++d) {
    const SentenceRange range{index.document_begin(d), index.document_begin(d + 1)};
    if (index.sentence_begin(range.end) > index.sentence_begin(range.begin)) all.documents.push_back(range);
  }
  if (all.documents.empty())
    throw DataError(format("{}: there are no tokens in it; check what it was made of", all.file->name()));
  return all;
}

TextDocuments hold_out(TextDocuments& train, double share) {
  TextDocuments held{train.file, {}};
  std::vector<SentenceRange>& documents = train.documents;
  if (documents.size() == 1) {
    SentenceRange& only = documents[0];
    const std::int64_t all = only.end - only.begin;
    if (all < 2)
      throw DataError(
          format("{}: one sentence cannot be shared between training and evaluation; name other text with "
                 "`data.eval`",
                 train.file->name()));
    const auto wanted = static_cast<std::int64_t>(std::llround(share * static_cast<double>(all)));
    const std::int64_t cut = only.end - std::clamp<std::int64_t>(wanted, 1, all - 1);
    held.documents = {{cut, only.end}};
    only.end = cut;
    if (train.tokens() == 0 || held.tokens() == 0)
      throw DataError(format("{}: too little text to hold some out; name other text with `data.eval`",
                             train.file->name()));
    return held;
  }
  std::vector<std::uint64_t> hashes;
  for (std::size_t d = 0; d < documents.size(); ++d) hashes.push_back(hash64(std::uint64_t{d}, kHeldOut));
  const auto [lowest, highest] = std::ranges::minmax_element(hashes);
  std::vector<SentenceRange> kept;
  for (std::size_t d = 0; d < documents.size(); ++d) {
    const bool below = static_cast<double>(hashes[d] >> 11) * 0x1p-53 < share;
    const auto place = hashes.begin() + static_cast<std::ptrdiff_t>(d);
    const bool is_held = (below || place == lowest) && place != highest;  // neither side may be empty
    (is_held ? held.documents : kept).push_back(documents[d]);
  }
  documents = std::move(kept);
  return held;
}

std::shared_ptr<const TextDataset> open_text_dataset(const TextDataOptions& options,
                                                     std::shared_ptr<const Tokenizer> tokenizer) {
  options.validate();
  const std::vector<Place> train = find_places(options.train, "train"),
                           eval = find_places(options.eval, "eval");
  if (!tokenizer) tokenizer = load(options, train[0]);
  auto dataset = std::make_shared<TextDataset>();
  dataset->tokenizer = tokenizer;
  dataset->train = open_places(train, options, *tokenizer);
  dataset->eval =
      eval.empty() ? hold_out(dataset->train, options.eval_share) : open_places(eval, options, *tokenizer);
  return dataset;
}

}  // namespace stoa
