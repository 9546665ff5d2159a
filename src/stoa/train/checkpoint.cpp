#include "stoa/train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <system_error>

#include "stoa/base/checksum.h"
#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/tensor/safetensors.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr const char* kModel = "model.safetensors";
constexpr const char* kOptimizer = "optimizer.safetensors";
constexpr const char* kAverage = "average.safetensors";
constexpr const char* kSparse = "sparse.safetensors";
constexpr const char* kState = "state.json";

std::string hex(std::uint32_t crc) {
  return format("{:08x}", crc);
}

std::string crc_of(const std::string& text) {
  return hex(crc32({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}));
}

fs::path step_folder(const fs::path& folder, std::int64_t step) {
  return folder / format("step-{}", step);
}

/// The number N of a name "step-N".
std::optional<std::int64_t> step_of(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  std::int64_t step = 0;
  const char* const end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  return error == std::errc() && rest == end ? std::optional(step) : std::nullopt;
}

void rename_folder(const fs::path& from, const fs::path& to) {
  std::error_code failed;
  fs::rename(from, to, failed);
  if (failed)
    throw IoError(format("cannot rename {} to {}: {}", from.string(), to.string(), failed.message()));
}

/// Removes a folder so that one killed half-way is not taken for a checkpoint.
void remove_folder(const fs::path& folder) {
  const fs::path hidden = folder.parent_path() / format(".{}.old", folder.filename().string());
  rename_folder(folder, hidden);
  std::error_code ignored;  // clean() tries again
  fs::remove_all(hidden, ignored);
}

/// Tensors of each file of a checkpoint, in the order in which they are written.
std::vector<std::pair<const char*, const StreamedTensors*>> files_of(const StreamedCheckpoint& checkpoint) {
  std::vector<std::pair<const char*, const StreamedTensors*>> files = {{kModel, &checkpoint.model},
                                                                       {kOptimizer, &checkpoint.optimizer}};
  if (!checkpoint.average.empty()) files.emplace_back(kAverage, &checkpoint.average);
  if (!checkpoint.sparse.empty()) files.emplace_back(kSparse, &checkpoint.sparse);
  return files;
}

void write_checkpoint(const fs::path& folder, const StreamedCheckpoint& checkpoint,
                      std::optional<double> value) {
  Json files = Json::object();
  for (const auto& [name, tensors] : files_of(checkpoint)) {
    const std::uint32_t crc = stream_safetensors(folder / name, *tensors, {{"format", "pt"}});
    files[name] = {{"bytes", fs::file_size(folder / name)}, {"crc32", hex(crc)}};
  }
  Json state = {{"step", checkpoint.step}, {"value", nullptr}, {"state", checkpoint.state}, {"files", files}};
  if (value) state["value"] = *value;
  state["crc32"] = crc_of(state.dump());  // of everything before it
  write_file_atomically(folder / kState, state.dump(2) + "\n");
  sync_folder(folder);
}

void require_file(const fs::path& file) {
  if (!fs::exists(file)) throw DataError(format("{} is missing", file.string()));
}

/// state.json, verified. Throws DataError.
Json read_state(const fs::path& folder) {
  const fs::path file = folder / kState;
  require_file(file);
  Json state = read_json(file);
  const Json written = state.is_object() ? state.value("crc32", Json()) : Json();
  if (!written.is_null()) state.erase("crc32");
  if (written.is_null() || Json(crc_of(state.dump())) != written)
    throw DataError(format("{} was altered: its content does not fit its checksum", file.string()));
  return state;
}

/// Compares a file with what state.json says of it. Throws DataError.
void verify_file(const fs::path& file, const Json& written) {
  require_file(file);
  const MappedFile content(file);
  const auto bytes = written.at("bytes").get<std::size_t>();
  if (content.bytes().size() != bytes)
    throw DataError(format("{} has {} bytes, {} were written: it was cut short or altered", file.string(),
                           content.bytes().size(), bytes));
  const std::string crc = hex(crc32(content.bytes()));
  if (Json(crc) != written.at("crc32"))
    throw DataError(format("{} was altered: its CRC-32 is {}, {} was written", file.string(), crc,
                           written.at("crc32").get<std::string>()));
}

Checkpoint read_checkpoint(const fs::path& folder, bool weights_only) {
  const Json written = read_state(folder);
  const auto verified = [&](const char* name) {
    verify_file(folder / name, written.at("files").at(name));
    return folder / name;
  };
  const auto map = [&](const char* name) { return map_safetensors(verified(name)).tensors; };
  const auto read = [&](const char* name) {
    return weights_only ? load_safetensors(verified(name)).tensors : map(name);
  };
  Checkpoint checkpoint;
  checkpoint.step = written.at("step");
  checkpoint.state = written.at("state");
  checkpoint.model = read(kModel);
  if (!weights_only) checkpoint.optimizer = map(kOptimizer);
  if (written.at("files").contains(kAverage)) checkpoint.average = read(kAverage);
  if (written.at("files").contains(kSparse)) checkpoint.sparse = map(kSparse);
  return checkpoint;
}

bool is_intact(const fs::path& folder) {
  try {
    const Json written = read_state(folder);
    for (const auto& [name, entry] : written.at("files").items()) verify_file(folder / name, entry);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

void StreamedCheckpoint::bring() const {
  for (const auto& [file, tensors] : files_of(*this))
    for (const auto& [name, source] : *tensors)
      if (!source.tensor.defined()) source.bring([](const at::Tensor&) {});
}

void CheckpointStore::save(const Checkpoint& checkpoint, const CheckpointOptions& options,
                           std::optional<double> value, bool higher_is_better) {
  save(StreamedCheckpoint{checkpoint.step, streamed(checkpoint.model), streamed(checkpoint.optimizer),
                          streamed(checkpoint.average), streamed(checkpoint.sparse), checkpoint.state},
       options, value, higher_is_better);
}

void CheckpointStore::save(const StreamedCheckpoint& checkpoint, const CheckpointOptions& options,
                           std::optional<double> value, bool higher_is_better) {
  const fs::path hidden = folder_ / format(".step-{}", checkpoint.step);
  const fs::path place = step_folder(folder_, checkpoint.step);
  std::error_code ignored, failed;
  fs::remove_all(hidden, ignored);
  try {
    fs::create_directories(hidden, failed);
    if (failed) throw IoError(format("cannot make the folder {}: {}", hidden.string(), failed.message()));
    write_checkpoint(hidden, checkpoint, value);
    if (fs::exists(place)) remove_folder(place);
    rename_folder(hidden, place);
    sync_folder(folder_);
  } catch (const IoError& error) {
    fs::remove_all(hidden, ignored);
    const auto kept = steps();
    const std::string rest =
        kept.empty()
            ? "there is no earlier checkpoint"
            : format("the checkpoint of step {} is unharmed: go on from it with --resume", kept.back());
    throw IoError(format("{}; {}", error.what(), rest));
  } catch (...) {  // of another process, which did not give its part
    fs::remove_all(hidden, ignored);
    throw;
  }
  prune(options, higher_is_better);
}

void CheckpointStore::prune(const CheckpointOptions& options, bool higher_is_better) const {
  const auto all = steps();
  const auto kept_best = options.keep_best ? best(higher_is_better) : std::nullopt;
  for (std::int64_t i = 0; i < std::ssize(all) - options.keep_last; ++i)
    if (all[i] != kept_best) remove_folder(step_folder(folder_, all[i]));
}

std::vector<std::int64_t> CheckpointStore::steps() const {
  std::vector<std::int64_t> found;
  std::error_code absent;
  for (const auto& entry : fs::directory_iterator(folder_, absent))
    if (const auto step = step_of(entry.path().filename().string()); step && entry.is_directory())
      found.push_back(*step);
  std::ranges::sort(found);
  return found;
}

std::optional<std::int64_t> CheckpointStore::best(bool higher_is_better) const {
  std::optional<std::int64_t> best_step;
  double best_value = 0;
  for (const std::int64_t step : steps()) {
    const fs::path folder = step_folder(folder_, step);
    Json written;
    try {
      written = read_state(folder);
    } catch (const DataError&) {
      continue;  // damaged; load() tells
    }
    if (!written.at("value").is_number()) continue;
    const double value = written.at("value");
    if (best_step && !(higher_is_better ? value > best_value : value < best_value)) continue;
    best_step = step;
    best_value = value;
  }
  return best_step;
}

Checkpoint CheckpointStore::load(std::int64_t step, bool weights_only) const {
  const auto all = steps();
  if (std::ranges::find(all, step) == all.end()) {
    std::vector<std::string> names;
    for (const std::int64_t there : all) names.push_back(std::to_string(there));
    throw ConfigError(format("{} has no checkpoint of step {}; there are: {}", folder_.string(), step,
                             names.empty() ? "none" : join(names, ", ")));
  }
  try {
    return read_checkpoint(step_folder(folder_, step), weights_only);
  } catch (const DataError& error) {
    for (auto earlier = all.rbegin(); earlier != all.rend(); ++earlier)
      if (*earlier < step && is_intact(step_folder(folder_, *earlier)))
        throw DataError(
            format("{0}; the checkpoint of step {1} is intact: take it with --step {1} (train) or "
                   "--checkpoint {1} (eval, predict)",
                   error.what(), *earlier));
    throw DataError(format("{}; no earlier checkpoint is intact, start a new run", error.what()));
  }
}

void CheckpointStore::remove_after(std::int64_t step) const {
  for (const std::int64_t later : steps())
    if (later > step) remove_folder(step_folder(folder_, later));
}

void CheckpointStore::clean() const {
  std::vector<fs::path> left;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder_, ignored))
    if (entry.path().filename().string().starts_with(".")) left.push_back(entry.path());
  for (const auto& path : left) fs::remove_all(path, ignored);
}

}  // namespace stoa
