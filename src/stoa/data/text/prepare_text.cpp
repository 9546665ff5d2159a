#include "stoa/data/text/prepare_text.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <optional>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/progress.h"
#include "stoa/data/text/text_part.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr const char* kTokenizerFolder = "tokenizer";
constexpr const char* kTokenizerList = "tokenizer-files.json";  // names that are about to be moved

const char* rule_name(SentenceRule rule) {
  return rule == SentenceRule::kLines ? "lines" : rule == SentenceRule::kSplit ? "split" : "whole";
}

class TextPreparation {
 public:
  explicit TextPreparation(const PrepareTextOptions& options) : options_(options) {
    if (options.inputs.empty()) throw ConfigError("name the files or folders of text to prepare");
    if (options.out.empty()) throw ConfigError("name the folder to write with --out");
    if (!options.tokenizer) throw ConfigError("name the tokenizer with --tokenizer");
    if (options.threads < 0) throw ConfigError(format("--threads {}: must be 0 or more", options.threads));
    if (options.rules.key.empty()) throw ConfigError("--key: name the key that holds the text");
  }

  PreparedText run() {
    const fs::path& out = options_.out;
    if (fs::exists(out) && !fs::is_directory(out))
      throw ConfigError(format("--out {}: it is a file; name a folder", out.string()));
    files_ = text_files(options_.inputs);
    command_ = command();
    fs::create_directories(out);
    const FileLock lock(out / kLockFile);
    if (claim()) return PreparedText::open(out);
    const std::vector<TextPartHead> parts = tokenize();
    PreparedText made{
        out, tokenizer().kind(), tokenizer().fingerprint(), tokenizer().size(), 0, 0, 0, command_, {}};
    join_text_parts(work(), parts, token_type_of(tokenizer().size()), out / kTokensPrefix, made);
    made.tokenizer_files = save_tokenizer();
    if (input_entries(files_) != command_.at("inputs"))
      throw DataError("the text was changed while it was read; prepare it again with --overwrite");
    made.write();
    fs::remove_all(work());
    return PreparedText::open(out);
  }

 private:
  fs::path work() const { return options_.out / kWorkFolder; }
  const Tokenizer& tokenizer() const { return *options_.tokenizer; }

  Json command() const {
    return as_read_back({{"inputs", input_entries(files_)},
                         {"tokenizer", tokenizer().fingerprint()},
                         {"sentences", rule_name(options_.rules.sentences)},
                         {"key", options_.rules.key},
                         {"broken_utf8", options_.rules.broken == BrokenUtf8::kRefuse ? "refuse" : "replace"},
                         {"chunk_bytes", options_.chunk_bytes}});
  }

  bool claim() const {
    return claim_folder({kTextKind, options_.out, command_, options_.overwrite,
                         [&] { return PreparedText::open(options_.out).command; },
                         [&] { remove_prepared(); }});
  }

  void remove_prepared() const {
    const fs::path& out = options_.out;
    const fs::path list = work() / kTokenizerList;
    if (fs::exists(out / kTextFile) && !fs::exists(list)) {
      Json names = Json::array();
      const Json text = read_json(out / kTextFile);
      const Json::json_pointer place("/tokenizer/files");
      if (text.is_object() && text.contains(place) && text[place].is_array())
        for (const Json& entry : text[place])
          if (entry.is_object()) names.push_back(entry.value("file", ""));
      write_file_atomically(list, json_text(names) + "\n");
    }
    for (const fs::path& file : {out / kTextFile, work() / kCommandFile}) fs::remove(file);
    if (fs::exists(list))
      for (const Json& name : read_json(list)) {
        const fs::path file = name.is_string() ? fs::path(name.get<std::string>()) : fs::path();
        if (!file.empty() && file == file.filename()) fs::remove(out / file);
      }
    fs::remove(token_file_name(out / kTokensPrefix));
    fs::remove(token_index_name(out / kTokensPrefix));
  }

  /// Makes the parts that are not there yet and returns the heads of all.
  std::vector<TextPartHead> tokenize() const {
    TextStream stream(files_, "", options_.chunk_bytes);
    Progress progress("tokenising", "lines", 0);
    const TokenType type = token_type_of(tokenizer().size());
    std::vector<TextPartHead> parts;
    std::mutex mutex;
    std::atomic<std::int64_t> bytes{0};
    const auto begun = std::chrono::steady_clock::now();
    for_each_chunk(
        stream,
        [&](const TextChunk& chunk) {
          const fs::path file = work() / text_part_name(chunk.number);
          std::optional<TextPartHead> head = whole_text_part(file, chunk, type);
          if (!head) {
            const TokenizedText text = tokenize_chunk(chunk, files_[chunk.file], options_.rules, tokenizer());
            head = write_text_part(file, chunk, text, type);
          }
          bytes += static_cast<std::int64_t>(chunk.text.size());
          const std::lock_guard lock(mutex);
          const auto number = static_cast<std::size_t>(chunk.number);
          if (parts.size() <= number) parts.resize(number + 1);
          parts[number] = *head;
        },
        [&](std::int64_t lines) {
          const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begun;
          progress.update(lines, format("{:.1f} MB/s, {:.0f} % of the input",
                                        static_cast<double>(bytes) / 1e6 / std::max(1e-9, seconds.count()),
                                        100 * stream.share()));
        },
        options_.threads);
    progress.finish();
    std::vector<std::int64_t> sentences(files_.size());
    for (const TextPartHead& part : parts) sentences[part.file] += part.sentences;
    const auto empty = std::ranges::find(sentences, 0);
    if (empty != sentences.end())
      throw DataError(format("{}: there is no text in it; leave the file out",
                             files_[static_cast<std::size_t>(empty - sentences.begin())].string()));
    return parts;
  }

  /// The tokenizer's files, written aside and then moved, each whole.
  Json save_tokenizer() const {
    const fs::path aside = work() / kTokenizerFolder;
    fs::remove_all(aside);
    fs::create_directories(aside);
    tokenizer().save(aside);
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(aside)) names.push_back(entry.path().filename().string());
    std::ranges::sort(names);
    const Json list(names);
    write_file_atomically(work() / kTokenizerList, json_text(list) + "\n");
    for (const std::string& name : names) write_file_atomically(options_.out / name, read_file(aside / name));
    return list;
  }

  PrepareTextOptions options_;
  std::vector<fs::path> files_;
  Json command_;
};

}  // namespace

PreparedText prepare_text(const PrepareTextOptions& options) {
  return TextPreparation(options).run();
}

}  // namespace stoa
