#include "stoa/data/text/prepared_text.h"

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/tabular/folder.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kMostSummed = std::uint64_t{1} << 30;

std::string tokens_name() {
  return token_file_name(kTokensPrefix).string();
}

std::string index_name() {
  return token_index_name(kTokensPrefix).string();
}

}  // namespace

bool is_prepared_text(const fs::path& folder) {
  if (fs::exists(folder / kTextFile)) return true;
  const fs::path command = folder / kWorkFolder / kCommandFile;
  if (fs::exists(folder / kSchemaFile) || !fs::exists(command)) return false;
  const Json begun = read_json(command);
  return begun.is_object() && begun.contains("tokenizer");
}

PreparedText PreparedText::open(const fs::path& folder) {
  PreparedText prepared;
  prepared.folder = folder;
  read_closing_file(kTextKind, folder, [&](const Json& json) {
    const Json& tokenizer = json.at("tokenizer");
    prepared.kind = tokenizer.at("kind");
    prepared.fingerprint = tokenizer.at("fingerprint");
    prepared.vocabulary = tokenizer.at("size");
    prepared.tokenizer_files = Json::array();
    for (const Json& entry : tokenizer.at("files")) {
      checked_file(kTextKind, folder, entry, kMostSummed);
      prepared.tokenizer_files.push_back(entry.at("file"));
    }
    prepared.documents = json.at("documents");
    prepared.sentences = json.at("sentences");
    prepared.tokens = json.at("tokens");
    for (const Json& entry : json.at("files")) checked_file(kTextKind, folder, entry, kMostSummed);
    prepared.command = json.at("command");
  });
  return prepared;
}

void PreparedText::write() const {
  Json files = Json::array();
  for (const Json& name : tokenizer_files) files.push_back(file_entry(folder, name.get<std::string>()));
  write_closing_file(
      kTextKind, folder,
      {{"tokenizer", {{"kind", kind}, {"fingerprint", fingerprint}, {"size", vocabulary}, {"files", files}}},
       {"documents", documents},
       {"sentences", sentences},
       {"tokens", tokens},
       {"files", {file_entry(folder, tokens_name()), file_entry(folder, index_name())}},
       {"command", command}});
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
