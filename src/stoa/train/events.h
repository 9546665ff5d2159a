#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "stoa/base/json.h"

namespace stoa {

/// The log of a run: metrics.jsonl, one object a line with "step" and "kind" ("train" or "eval"), and the
/// scalars of it as TensorBoard events. On resuming, lines of later steps than the checkpoint's are removed
/// first, so that an interrupted run's log equals an uninterrupted one's.
class EventLog {
 public:
  /// `first_step` > 0 keeps the lines up to that step. Throws IoError.
  EventLog(const std::filesystem::path& run_folder, std::int64_t first_step);
  /// Appends one line, and every number at its top level to the TensorBoard file as "KIND/NAME".
  void write(const std::string& kind, std::int64_t step, const Json& values);

 private:
  std::filesystem::path lines_, events_;
};

/// All lines of a run's metrics.jsonl. A half-written last line (a killed process) is passed over.
std::vector<Json> read_events(const std::filesystem::path& run_folder);

}  // namespace stoa
