#include "stoa/train/events.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string_view>
#include <system_error>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/train/tfevents.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr const char* kLines = "metrics.jsonl";
constexpr const char* kEvents = "events.tfevents";

/// Appends with one write(2), so that a killed process leaves a torn last record at most.
void append(const fs::path& file, std::string_view record) {
  const int descriptor = ::open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  ssize_t written = -1;
  if (descriptor >= 0) {
    do written = ::write(descriptor, record.data(), record.size());
    while (written < 0 && errno == EINTR);
  }
  // a full disk first takes a part of the record, and says so only when asked to write the rest
  const int code = written < 0 ? errno : ENOSPC;
  if (descriptor >= 0) ::close(descriptor);
  if (written != static_cast<ssize_t>(record.size()))
    throw IoError(format("cannot append to {}: {}", file.string(), std::generic_category().message(code)));
}

void cut(const fs::path& file, std::size_t size) {
  std::error_code failed;
  if (fs::exists(file)) fs::resize_file(file, size, failed);
  if (failed) throw IoError(format("cannot shorten {}: {}", file.string(), failed.message()));
}

std::string content_of(const fs::path& file) {
  return fs::exists(file) ? read_file(file) : std::string();
}

/// Calls `use` with each whole line, its number from 1 and the place behind it, until it returns false.
template <class Use>
void for_each_line(const std::string& content, const Use& use) {
  std::size_t begin = 0, number = 0;
  for (std::size_t end; (end = content.find('\n', begin)) != std::string::npos; begin = end + 1)
    if (!use(std::string_view(content).substr(begin, end - begin), ++number, end + 1)) return;
}

/// How many bytes of metrics.jsonl belong to steps up to `last_step`.
std::size_t lines_up_to(const std::string& content, std::int64_t last_step) {
  std::size_t kept = 0;
  for_each_line(content, [&](std::string_view line, std::size_t, std::size_t end) {
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    const bool keep = json.is_object() && json.value("step", Json()).is_number_integer() &&
                      json["step"].get<std::int64_t>() <= last_step;
    if (keep) kept = end;
    return keep;
  });
  return kept;
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

EventLog::EventLog(const fs::path& run_folder, std::int64_t first_step)
    : lines_(run_folder / kLines), events_(run_folder / kEvents) {
  cut(lines_, first_step > 0 ? lines_up_to(content_of(lines_), first_step) : 0);
  const std::size_t kept = first_step > 0 ? tfevents_up_to(content_of(events_), first_step) : 0;
  cut(events_, kept);
  if (kept == 0) append(events_, tfevents_header(now()));
}

void EventLog::write(const std::string& kind, std::int64_t step, const Json& values) {
  Json line = {{"step", step}, {"kind", kind}};
  line.update(values);
  append(lines_, line.dump() + "\n");
  std::vector<std::pair<std::string, float>> scalars;
  for (const auto& [name, value] : values.items())
    if (value.is_number()) scalars.emplace_back(format("{}/{}", kind, name), value.get<float>());
  append(events_, tfevents_scalars(now(), step, scalars));
}

std::vector<Json> read_events(const fs::path& run_folder) {
  const fs::path file = run_folder / kLines;
  std::vector<Json> events;
  for_each_line(content_of(file), [&](std::string_view line, std::size_t number, std::size_t) {
    events.push_back(Json::parse(line, nullptr, /*allow_exceptions=*/false));
    if (!events.back().is_object())
      throw DataError(format("{}:{}: not a JSON object; the file was altered", file.string(), number));
    return true;
  });
  return events;
}

}  // namespace stoa
