#include "stoa/train/profile_recorder.h"

#include <ATen/SequenceNumber.h>
#include <ATen/record_function.h>
#include <c10/core/Allocator.h>
#include <c10/util/Logging.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/cuda.h>

#include <array>
#include <chrono>
#include <map>
#include <mutex>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/json.h"

namespace stoa {
namespace {

using Clock = std::chrono::steady_clock;

/// Takes what LibTorch reports, from whichever thread.
class Log : public c10::MemoryReportingInfoBase {
 public:
  explicit Log(c10::Device device) : device_(device), thread_(at::RecordFunction::currentThreadId()) {}

  int begin(const at::RecordFunction& function) {
    RecordedEvent event;
    event.name = function.name();
    event.thread = function.threadId();
    if (function.scope() == at::RecordScope::BACKWARD_FUNCTION || event.name.starts_with(kEngineWork)) {
      event.kind = RecordedEvent::Kind::kNode;
      event.sequence = function.seqNr();
      event.forward_thread = function.forwardThreadId();
    } else if (function.scope() == at::RecordScope::USER_SCOPE) {
      event.kind = RecordedEvent::Kind::kScope;
      event.sequence = static_cast<std::int64_t>(at::sequence_number::peek());
    }
    const std::lock_guard lock(mutex_);
    event.parent = open();
    const int index = static_cast<int>(recording_.events.size());
    open_[event.thread].push_back(index);
    recording_.events.push_back(std::move(event));
    recording_.events.back().start = now();
    return index;
  }

  void end(int index) {
    if (device_.is_cuda()) torch::cuda::synchronize(device_.index());
    const std::lock_guard lock(mutex_);
    RecordedEvent& event = recording_.events[static_cast<std::size_t>(index)];
    event.end = now();
    if (event.kind == RecordedEvent::Kind::kScope)
      event.sequence_end = static_cast<std::int64_t>(at::sequence_number::peek());
    std::erase(open_[event.thread], index);
  }

  void reportMemoryUsage(void* address, std::int64_t bytes, std::size_t, std::size_t, c10::Device) override {
    const std::lock_guard lock(mutex_);
    recording_.memory.push_back({now(), reinterpret_cast<std::uintptr_t>(address), bytes, open()});
  }
  bool memoryProfilingEnabled() const override { return true; }

  Recording take() {
    const std::lock_guard lock(mutex_);
    return std::move(recording_);
  }

 private:
  std::int64_t now() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start_).count();
  }

  /// The innermost open event of this thread. The backward pass of a GPU runs in a thread of its own while
  /// the recording's thread waits for it: there it is that thread's.
  int open() {
    const auto& mine = open_[at::RecordFunction::currentThreadId()];
    const auto& open = mine.empty() ? open_[thread_] : mine;
    return open.empty() ? -1 : open.back();
  }

  const c10::Device device_;
  const std::uint64_t thread_;
  const Clock::time_point start_ = Clock::now();
  std::mutex mutex_;
  Recording recording_;
  std::map<std::uint64_t, std::vector<int>> open_;  // by thread
};

struct Open : at::ObserverContext {
  Open(std::shared_ptr<Log> log, int event) : log(std::move(log)), event(event) {}
  std::shared_ptr<Log> log;
  int event;
};

/// LibTorch calls plain functions, which find the log here.
std::shared_ptr<Log>& current_log() {
  static std::shared_ptr<Log> log;
  return log;
}

std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function) {
  const auto& log = current_log();
  return log ? std::make_unique<Open>(log, log->begin(function)) : nullptr;
}

void on_end(const at::RecordFunction&, at::ObserverContext* context) {
  if (auto* const open = static_cast<Open*>(context)) open->log->end(open->event);
}

}  // namespace

struct ProfileRecorder::Hooks {
  std::shared_ptr<Log> log;
  c10::DebugInfoGuard memory;
  at::CallbackHandle callback;
  const int log_level = FLAGS_caffe2_log_level;

  explicit Hooks(const std::shared_ptr<Log>& log)
      : log(log),
        memory(c10::DebugInfoKind::PROFILER_STATE, log),
        callback(at::addThreadLocalCallback(
            at::RecordFunctionCallback(on_start, on_end)
                .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION,
                         at::RecordScope::USER_SCOPE}))) {
    current_log() = log;
    // LibTorch warns of tensors freed now that were made before, which are of no interest here
    FLAGS_caffe2_log_level = std::max(log_level, static_cast<int>(c10::GLOG_ERROR));
  }
  ~Hooks() {
    FLAGS_caffe2_log_level = log_level;
    at::removeCallback(callback);
    current_log().reset();
  }
};

ProfileRecorder::ProfileRecorder(c10::Device device) {
  if (current_log()) throw Error("a profile is being recorded already; stop it before the next");
  hooks_ = std::make_unique<Hooks>(std::make_shared<Log>(device));
}

ProfileRecorder::~ProfileRecorder() = default;

Recording ProfileRecorder::stop() {
  const auto log = hooks_->log;
  hooks_.reset();
  return log->take();
}

void write_trace(const std::filesystem::path& file, const Recording& recording) {
  const auto microseconds = [](std::int64_t ns) { return format("{:.3f}", 1e-3 * static_cast<double>(ns)); };
  const std::array categories = {"operator", "backward", "scope"};
  std::string text = R"({"displayTimeUnit": "ms", "traceEvents": [
{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "stoa train"}})";
  for (const RecordedEvent& event : recording.events) {
    text += format(R"(,
{{"ph": "X", "pid": 1, "tid": {}, "ts": {}, "dur": {}, "cat": "{}", "name": {})",
                   event.thread, microseconds(event.start), microseconds(event.end - event.start),
                   categories[static_cast<std::size_t>(event.kind)], Json(event.name).dump());
    text += event.sequence < 0 ? "}" : format(R"(, "args": {{"sequence": {}}}}})", event.sequence);
  }
  std::int64_t held = 0;
  for (const RecordedMemory& memory : recording.memory) {
    held += memory.bytes;
    text += format(R"(,
{{"ph": "C", "pid": 1, "ts": {}, "name": "memory of tensors, change", "args": {{"bytes": {}}}}})",
                   microseconds(memory.time), held);
  }
  write_file_atomically(file, text + "\n]}\n");
}

}  // namespace stoa
