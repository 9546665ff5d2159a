#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "stoa/base/json.h"
#include "stoa/train/profile_recorder.h"

namespace stoa {

/// Steps that a profiled training does before it records: the first ones are slower than all others.
inline constexpr int kProfileWarmUp = 3;

/// What was run, and what is known of it beside the recording.
struct ProfiledRun {
  std::string title;
  std::int64_t samples = 0;  ///< of a step
  std::int64_t macs = 0;     ///< multiply-accumulates of one sample's forward pass
  double step_ms = 0;        ///< of a step that was not recorded
  std::string device = "cpu";
  std::string precision = "fp32";
  int threads = 1, cores = 1;
  std::int64_t workers = 1;      ///< threads that prepare batches
  std::int64_t peak_memory = 0;  ///< bytes, of the process
  double load = 0;               ///< processes that wanted a core, mean of the last minute
  bool bf16_is_slow = false;     ///< bf16 on a CPU that has no instructions for it
};

/// A part of the model ("attention"), or what else a step consists of ("data", "optimizer"). Means of the
/// steps.
struct PartProfile {
  std::string name;
  bool in_model = true;  ///< has a forward and a backward pass
  double forward_ms = 0, backward_ms = 0, ms = 0;
  double kept = 0;       ///< bytes taken in the forward pass and still held where the backward pass begins
  double allocated = 0;  ///< bytes taken, given back or not
};

/// An operator by its own work, without that of the operators it calls. Means of the steps.
struct OperatorProfile {
  std::string name;
  double calls = 0, ms = 0, allocated = 0;
};

/// Where a step's time and memory go. The milliseconds of `parts`, and those of `operators`, add up to
/// `step_ms`.
struct Profile {
  ProfiledRun run;
  std::int64_t steps = 0;
  double step_ms = 0;                      ///< of a recorded step, mean
  double tensor_peak = 0;                  ///< bytes that a step holds at most beyond what it began with
  std::vector<PartProfile> parts;          ///< of the model in the order they begin, then the rest
  std::vector<OperatorProfile> operators;  ///< the slowest first

  /// Samples a second and GFLOP/s of unrecorded steps; a training step is taken for three forward passes.
  double samples_per_second() const;
  double gflops() const;
};

/// Sums a recording up by part and by operator. A node of the backward pass counts as the part whose scope
/// was open when autograd gave its number, the accumulation of a gradient as the part that ran before it.
/// Throws Error where no step was recorded.
Profile summarize(const Recording& recording, const ProfiledRun& run);

/// What is plainly slow and what to do about it, a sentence each.
std::vector<std::string> advice(const Profile& profile);

/// Tables for people.
std::string profile_text(const Profile& profile);
/// The same for programs (docs/formats.md).
Json profile_json(const Profile& profile);

/// Writes trace.json, profile.txt and profile.json into `folder`, which is made where it is missing. Throws
/// IoError.
void write_profile(const std::filesystem::path& folder, const Profile& profile, const Recording& recording);

}  // namespace stoa
