#include "stoa/data/text/prepared_text.h"

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/tabular/folder.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFormat = "stoa-text-1";
constexpr std::uint64_t kCheckedAtOnce = std::uint64_t{1} << 30;

std::string crc_of(const std::string& text) {
  return crc_text({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

Json file_entry(const fs::path& folder, const std::string& name) {
  const MappedFile file(folder / name);
  return {{"file", name}, {"bytes", file.bytes().size()}, {"crc32", crc_text(file.bytes())}};
}

void check_file(const fs::path& folder, const Json& entry) {
  const fs::path file = folder / entry.at("file").get<std::string>();
  std::unique_ptr<MappedFile> mapped;
  try {
    mapped = std::make_unique<MappedFile>(file);
  } catch (const IoError& error) {
    throw DataError(format("{}; the prepared text is not whole, prepare it again", error.what()));
  }
  const std::uint64_t bytes = entry.at("bytes");
  if (mapped->bytes().size() != bytes)
    throw DataError(format("{}: it has {} bytes, {} were written; prepare the text again", file.string(),
                           mapped->bytes().size(), bytes));
  if (bytes <= kCheckedAtOnce && crc_text(mapped->bytes()) != entry.at("crc32").get<std::string>())
    throw DataError(format(
        "{}: altered, or of another data set: its checksum is wrong; prepare the text again", file.string()));
}

std::string tokens_name() {
  return token_file_name(kTokensPrefix).string();
}

std::string index_name() {
  return token_index_name(kTokensPrefix).string();
}

}  // namespace

bool is_prepared_text(const fs::path& folder) {
  if (fs::exists(folder / kTextFile)) return true;
  const fs::path command = folder / kWorkFolder / "command.json";
  if (fs::exists(folder / kSchemaFile) || !fs::exists(command)) return false;
  const Json begun = read_json(command);
  return begun.is_object() && begun.contains("tokenizer");
}

PreparedText PreparedText::open(const fs::path& folder) {
  const fs::path file = folder / kTextFile;
  if (!fs::exists(file)) {
    if (fs::exists(folder / kWorkFolder))
      throw DataError(
          format("{}: the preparation of this text did not come to its end; give its `stoa data prepare` "
                 "command again",
                 folder.string()));
    throw DataError(format("{}: no prepared text there (no {}); make it with `stoa data prepare text`",
                           folder.string(), kTextFile));
  }
  try {
    Json json = read_json(file);
    const std::string written = json.is_object() ? json.at("crc32") : Json("");
    json.erase("crc32");
    if (json.at("format") != kFormat)
      throw DataError(
          format("{}: format {}; this program reads {}", file.string(), json.at("format").dump(), kFormat));
    if (crc_of(json_text(json)) != written)
      throw DataError(format("{}: altered: its checksum is wrong; prepare the text again", file.string()));
    PreparedText prepared;
    prepared.folder = folder;
    const Json& tokenizer = json.at("tokenizer");
    prepared.kind = tokenizer.at("kind");
    prepared.fingerprint = tokenizer.at("fingerprint");
    prepared.vocabulary = tokenizer.at("size");
    prepared.tokenizer_files = Json::array();
    for (const Json& entry : tokenizer.at("files")) {
      check_file(folder, entry);
      prepared.tokenizer_files.push_back(entry.at("file"));
    }
    prepared.documents = json.at("documents");
    prepared.sentences = json.at("sentences");
    prepared.tokens = json.at("tokens");
    for (const Json& entry : json.at("files")) check_file(folder, entry);
    prepared.command = json.at("command");
    return prepared;
  } catch (const Json::exception& error) {
    throw DataError(format("{}: cannot be read ({}); prepare the text again", file.string(), error.what()));
  }
}

void PreparedText::write() const {
  Json json = {
      {"format", kFormat},
      {"tokenizer",
       {{"kind", kind}, {"fingerprint", fingerprint}, {"size", vocabulary}, {"files", Json::array()}}},
      {"documents", documents},
      {"sentences", sentences},
      {"tokens", tokens},
      {"files", {file_entry(folder, tokens_name()), file_entry(folder, index_name())}},
      {"command", command}};
  for (const Json& name : tokenizer_files)
    json["tokenizer"]["files"].push_back(file_entry(folder, name.get<std::string>()));
  json["crc32"] = crc_of(json_text(json));  // of everything before it
  write_file_atomically(folder / kTextFile, json_text(json, 1) + "\n");
}

std::shared_ptr<const TokenFile> PreparedText::token_file() const {
  auto file = std::make_shared<const TokenFile>(folder / kTokensPrefix, vocabulary);
  const TokenIndex& index = file->index();
  if (index.documents() != documents || index.sentences() != sentences || index.tokens() != tokens)
    throw DataError(
        format("{}: {} documents, {} sentences, {} tokens; {} says {}, {}, {}; prepare the text "
               "again",
               file->name(), index.documents(), index.sentences(), index.tokens(), kTextFile, documents,
               sentences, tokens));
  return file;
}

std::shared_ptr<const Tokenizer> PreparedText::load_tokenizer() const {
  auto tokenizer = stoa::load_tokenizer(kind == "bytes" ? fs::path(kind) : folder);
  check_tokenizer(*tokenizer);
  return tokenizer;
}

void PreparedText::check_tokenizer(const Tokenizer& tokenizer) const {
  if (tokenizer.fingerprint() == fingerprint) return;
  throw DataError(format(
      "{}: its tokens are of another vocabulary ({}, {} tokens, fingerprint {}) than the tokenizer ({}, "
      "{} tokens, fingerprint {}); prepare the text with this tokenizer",
      folder.string(), kind, vocabulary, fingerprint, tokenizer.kind(), tokenizer.size(),
      tokenizer.fingerprint()));
}

}  // namespace stoa
