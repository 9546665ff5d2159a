#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace stoa {

/// What autograd's engine does around a node is recorded under this and the node's name.
inline constexpr std::string_view kEngineWork = "autograd::engine::evaluate_function: ";

/// Something that took time: an operator, a node of the backward pass (and the engine's work on it), or a
/// named scope.
struct RecordedEvent {
  enum class Kind { kOperator, kNode, kScope };
  Kind kind = Kind::kOperator;
  std::string name;
  std::int64_t start = 0, end = 0;  ///< ns since the recording began
  int parent = -1;                  ///< index of the event that it was a part of; -1 for none
  std::uint64_t thread = 0;
  /// Autograd numbers what it will differentiate, thread by thread. Node: its number, -1 for none, and the
  /// thread that gave it (0: the node's own). Scope: the next numbers at its start and at its end.
  std::int64_t sequence = -1, sequence_end = -1;
  std::uint64_t forward_thread = 0;
};

/// Memory of tensors taken, or given back.
struct RecordedMemory {
  std::int64_t time = 0;  ///< ns since the recording began
  std::uintptr_t address = 0;
  std::int64_t bytes = 0;  ///< negative where given back
  int event = -1;          ///< the event that did it
};

/// What happened on the recording's thread, and on those that worked for it, in the order of time.
struct Recording {
  std::vector<RecordedEvent> events;
  std::vector<RecordedMemory> memory;
};

/// Records every operator, node of a backward pass, named scope and allocation of this thread from its
/// construction until stop(). On a GPU each operator is waited for, so that its time is its own. One at a
/// time.
class ProfileRecorder {
 public:
  explicit ProfileRecorder(c10::Device device);
  ~ProfileRecorder();
  ProfileRecorder(const ProfileRecorder&) = delete;
  ProfileRecorder& operator=(const ProfileRecorder&) = delete;

  /// Ends the recording and gives what was recorded. Call it once, outside all scopes.
  Recording stop();

 private:
  struct Hooks;
  std::unique_ptr<Hooks> hooks_;
};

/// Writes a recording as a trace in Chrome's JSON, which ui.perfetto.dev and chrome://tracing open. Throws
/// IoError.
void write_trace(const std::filesystem::path& file, const Recording& recording);

}  // namespace stoa
