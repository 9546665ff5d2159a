#include "stoa/data/text/prepare_text.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/progress.h"
#include "stoa/data/tabular/folder.h"
#include "stoa/data/text/text_part.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr const char* kLockFile = ".lock";
constexpr const char* kCommandFile = "command.json";
constexpr const char* kTokenizerFolder = "tokenizer";
constexpr const char* kTokenizerList = "tokenizer-files.json";  // names that are about to be moved

Json input_entry(const fs::path& file) {
  std::error_code error;
  const auto changed = fs::last_write_time(file, error).time_since_epoch();
  if (!error && !fs::is_regular_file(file))
    throw IoError(format("cannot read {}: a regular file is needed", file.string()));
  if (error) throw IoError(format("cannot read {}: {}", file.string(), error.message()));
  return {{"file", fs::weakly_canonical(file).string()},
          {"bytes", fs::file_size(file)},
          {"changed", std::chrono::duration_cast<std::chrono::nanoseconds>(changed).count()}};
}

/// JSON as it comes back from a file, where names that are not UTF-8 are changed: to be compared with such.
Json as_read_back(const Json& json) {
  return Json::parse(json_text(json));
}

const char* rule_name(SentenceRule rule) {
  return rule == SentenceRule::kLines ? "lines" : rule == SentenceRule::kSplit ? "split" : "whole";
}

void remove_temporaries(const fs::path& folder) {  // of a process that was killed
  std::vector<fs::path> left;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.') && name.ends_with(".tmp")) left.push_back(entry.path());
  }
  for (const fs::path& file : left) fs::remove(file);
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
    if (claim_folder()) return PreparedText::open(out);
    const std::vector<TextPartHead> parts = tokenize();
    PreparedText made{
        out, tokenizer().kind(), tokenizer().fingerprint(), tokenizer().size(), 0, 0, 0, command_, {}};
    join_text_parts(work(), parts, token_type_of(tokenizer().size()), out / kTokensPrefix, made);
    made.tokenizer_files = save_tokenizer();
    if (input_entries() != command_.at("inputs"))
      throw DataError("the text was changed while it was read; prepare it again with --overwrite");
    made.write();
    fs::remove_all(work());
    return PreparedText::open(out);
  }

 private:
  fs::path work() const { return options_.out / kWorkFolder; }
  const Tokenizer& tokenizer() const { return *options_.tokenizer; }

  Json input_entries() const {
    Json inputs = Json::array();
    for (const fs::path& file : files_) inputs.push_back(input_entry(file));
    return as_read_back(inputs);
  }

  Json command() const {
    return as_read_back({{"inputs", input_entries()},
                         {"tokenizer", tokenizer().fingerprint()},
                         {"sentences", rule_name(options_.rules.sentences)},
                         {"key", options_.rules.key},
                         {"broken_utf8", options_.rules.broken == BrokenUtf8::kRefuse ? "refuse" : "replace"},
                         {"chunk_bytes", options_.chunk_bytes}});
  }

  /// True where the folder already holds what is wanted. Otherwise it is ready to be written or written on.
  bool claim_folder() const {
    const fs::path& out = options_.out;
    const fs::path finished = out / kTextFile, begun = work() / kCommandFile;
    const auto is_ours = [&] { return fs::exists(begun) && read_json(begun) == command_; };
    if (options_.overwrite && (fs::exists(finished) || !is_ours())) remove_prepared();
    if (fs::exists(finished)) {
      if (PreparedText::open(out).command != command_)
        throw ConfigError(format(
            "{} holds other prepared text, of other options or files; choose another folder, or replace "
            "it with --overwrite",
            out.string()));
      fs::remove_all(work());
      log_info(format("{}: this text is prepared already", out.string()));
      return true;
    }
    if (!fs::exists(begun)) {
      for (const auto& entry : fs::directory_iterator(out))
        if (entry.path().filename() != kLockFile && entry.path().filename() != kWorkFolder)
          throw ConfigError(format(
              "{} is not empty ({}); choose a new folder{}", out.string(), entry.path().filename().string(),
              fs::exists(work()) ? ", or remove half-removed data with --overwrite" : ""));
      fs::remove_all(work());  // of a preparation that was being removed: nothing in it may be used
      fs::create_directories(work());
      write_file_atomically(begun, json_text(command_, 1) + "\n");
    } else if (is_ours()) {
      log_info(format("{}: going on with what is there", out.string()));
    } else {
      throw ConfigError(format(
          "{} holds an unfinished preparation of other options or files; finish it with its own command, "
          "or remove it with --overwrite",
          out.string()));
    }
    for (const fs::path& folder : {out, work()}) remove_temporaries(folder);
    return false;
  }

  /// Only what preparation writes. First what says that there is text, or that something can be gone on with,
  /// so that a kill leaves a folder that is neither.
  void remove_prepared() const {
    const fs::path& out = options_.out;
    const fs::path list = work() / kTokenizerList;
    if (!fs::exists(out / kTextFile) && !fs::exists(work())) return;
    fs::create_directories(work());
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
    remove_temporaries(out);
    fs::remove_all(work());
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
