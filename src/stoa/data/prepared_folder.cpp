#include "stoa/data/prepared_folder.h"

#include <chrono>
#include <span>
#include <system_error>

#include "stoa/base/checksum.h"
#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/progress.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

std::string crc_text(std::span<const std::uint8_t> bytes) {
  return format("{:08x}", crc32(bytes));
}

std::string crc_text(const std::string& text) {
  return crc_text(std::span(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()));
}

Json input_entry(const fs::path& file) {
  std::error_code error;
  const auto changed = fs::last_write_time(file, error).time_since_epoch();
  if (!error && !fs::is_regular_file(file))
    throw IoError(format("cannot read {}: it may be read again, so a regular file is needed", file.string()));
  if (error) throw IoError(format("cannot read {}: {}", file.string(), error.message()));
  return {{"file", fs::weakly_canonical(file).string()},
          {"bytes", fs::file_size(file)},
          {"changed", std::chrono::duration_cast<std::chrono::nanoseconds>(changed).count()}};
}

/// Throws ConfigError where there is anything but the lock and a work folder.
void check_empty(const fs::path& out) {
  for (const auto& entry : fs::directory_iterator(out)) {
    const fs::path name = entry.path().filename();
    if (name != kLockFile && name != kWorkFolder)
      throw ConfigError(
          format("{} is not empty ({}); choose a new folder{}", out.string(), name.string(),
                 fs::exists(out / kWorkFolder) ? ", or remove half-removed data with --overwrite" : ""));
  }
}

}  // namespace

Json file_entry(const fs::path& folder, const std::string& name) {
  const MappedFile file(folder / name);
  return {{"file", name}, {"bytes", file.bytes().size()}, {"crc32", crc_text(file.bytes())}};
}

std::unique_ptr<MappedFile> checked_file(const PreparedKind& kind, const fs::path& folder, const Json& entry,
                                         std::uint64_t most_summed) {
  const fs::path file = folder / entry.at("file").get<std::string>();
  std::unique_ptr<MappedFile> mapped;
  try {
    mapped = std::make_unique<MappedFile>(file);
  } catch (const IoError& error) {
    throw DataError(format("{}; it is part of the prepared {}, prepare the {} again", error.what(), kind.noun,
                           kind.noun));
  }
  const std::uint64_t bytes = entry.at("bytes");
  if (mapped->bytes().size() != bytes)
    throw DataError(format("{}: it has {} bytes, {} were written; prepare the {} again", file.string(),
                           mapped->bytes().size(), bytes, kind.noun));
  if (bytes <= most_summed && crc_text(mapped->bytes()) != entry.at("crc32").get<std::string>())
    throw DataError(format("{}: altered, or of another data set: its checksum is wrong; prepare the {} again",
                           file.string(), kind.noun));
  return mapped;
}

void read_closing_file(const PreparedKind& kind, const fs::path& folder,
                       const std::function<void(const Json&)>& take) {
  const fs::path file = folder / kind.closing_file;
  if (!fs::exists(file)) {
    if (fs::exists(folder / kWorkFolder))
      throw DataError(
          format("{}: the preparation of the {} did not come to its end; give its `{}` command again",
                 folder.string(), kind.noun, kind.program));
    throw DataError(format("{}: no prepared {} there (no {}); make such a folder with `{}`", folder.string(),
                           kind.noun, kind.closing_file, kind.program));
  }
  try {
    Json json = read_json(file);
    const std::string written = json.is_object() ? json.at("crc32") : Json("");
    json.erase("crc32");
    if (json.at("format") != kind.format)
      throw DataError(format("{}: format {}; this program reads {}", file.string(), json.at("format").dump(),
                             kind.format));
    if (crc_text(json_text(json)) != written)
      throw DataError(
          format("{}: altered: its checksum is wrong; prepare the {} again", file.string(), kind.noun));
    take(json);
  } catch (const Json::exception& error) {
    throw DataError(
        format("{}: cannot be read ({}); prepare the {} again", file.string(), error.what(), kind.noun));
  }
}

void write_closing_file(const PreparedKind& kind, const fs::path& folder, const Json& content) {
  Json json = {{"format", kind.format}};
  json.update(content);
  json["crc32"] = crc_text(json_text(json));  // of everything before it
  write_file_atomically(folder / kind.closing_file, json_text(json, 1) + "\n");
}

std::string json_text(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

Json as_read_back(const Json& json) {
  return Json::parse(json_text(json));
}

Json input_entries(const std::vector<fs::path>& files) {
  Json inputs = Json::array();
  for (const fs::path& file : files) inputs.push_back(input_entry(file));
  return as_read_back(inputs);
}

void remove_temporaries(const fs::path& folder) {
  std::vector<fs::path> left;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.') && name.ends_with(".tmp")) left.push_back(entry.path());
  }
  for (const fs::path& file : left) fs::remove(file);
}

bool claim_folder(const FolderClaim& claim) {
  const fs::path& out = claim.out;
  const fs::path finished = out / claim.kind.closing_file;
  const fs::path work = out / kWorkFolder, begun = work / kCommandFile;
  const auto is_ours = [&] { return fs::exists(begun) && read_json(begun) == claim.command; };
  if (claim.overwrite && (fs::exists(finished) || (fs::exists(work) && !is_ours()))) {
    fs::create_directories(work);  // stays until the end: it says that files are left to be removed
    claim.remove_prepared();
    remove_temporaries(out);
    fs::remove_all(work);
  }
  if (fs::exists(finished)) {
    if (claim.finished_command() != claim.command)
      throw ConfigError(
          format("{} holds other prepared {}, of other options or files; choose another folder, or replace "
                 "what is there with --overwrite",
                 out.string(), claim.kind.noun));
    fs::remove_all(work);
    log_info(format("{}: prepared already", out.string()));
    return true;
  }
  if (!fs::exists(begun)) {
    check_empty(out);
    fs::remove_all(work);  // of a preparation that was being removed: nothing in it may be used
    fs::create_directories(work);
    write_file_atomically(begun, json_text(claim.command, 1) + "\n");
  } else if (is_ours()) {
    log_info(format("{}: going on with what is there", out.string()));
  } else {
    throw ConfigError(
        format("{} holds an unfinished preparation of other options or files; finish it with its own "
               "command, or remove it with --overwrite",
               out.string()));
  }
  for (const fs::path& folder : {out, work}) remove_temporaries(folder);
  return false;
}

}  // namespace stoa
