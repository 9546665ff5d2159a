// A profile in words: tables, advice, JSON, files.
#include <algorithm>

#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/train/phase_scope.h"
#include "stoa/train/profile.h"

namespace stoa {
namespace {

constexpr std::size_t kOperatorsShown = 20, kLongestName = 48;
// shares of a step from which on something is worth a word
constexpr double kMuchWaiting = 0.1, kMuchUpdating = 0.25, kMuchElse = 0.1, kMuchStarting = 0.2;
constexpr double kMuchRecording = 1.3;  // recorded step over unrecorded step
constexpr double kStartMs = 0.002;      // what it takes to start an operator, roughly

double share(const Profile& profile, double ms) {
  return profile.step_ms > 0 ? ms / profile.step_ms : 0;
}

double share_of_part(const Profile& profile, std::string_view name) {
  const auto found = std::ranges::find_if(
      profile.parts, [&](const auto& part) { return !part.in_model && part.name == name; });
  return found == profile.parts.end() ? 0 : share(profile, found->ms);
}
double share_of_phase(const Profile& profile, Phase phase) {
  return share_of_part(profile, kPhaseNames[static_cast<std::size_t>(phase)]);
}

/// Columns: the first one flush left, the others flush right. Headings, rule, rows, where `last` is a rule
/// before the last.
std::string table(const std::vector<std::vector<std::string>>& rows, bool sum) {
  std::vector<std::size_t> widths(rows.front().size());
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::size_t total = 0;
  for (const auto width : widths) total += width + 2;
  const std::string rule = std::string(total - 2, '-') + "\n";
  std::string text;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    if (r == 1 || (sum && r + 1 == rows.size())) text += rule;
    for (std::size_t i = 0; i < rows[r].size(); ++i)
      text += i == 0 ? format("{:<{}}", rows[r][i], widths[i]) : format("  {:>{}}", rows[r][i], widths[i]);
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  }
  return text;
}

std::string ms_text(double ms) {
  return format("{:.2f}", ms);
}
std::string share_text(const Profile& profile, double ms) {
  return format("{:.1f} %", 100 * share(profile, ms));
}
std::string memory_text(double count) {
  return count > 0 ? bytes(count) : "-";
}

std::string parts_table(const Profile& profile) {
  std::vector<std::vector<std::string>> rows = {
      {"part", "forward ms", "backward ms", "ms", "share", "kept", "allocated"}};
  PartProfile sum{.name = "step"};
  for (const auto& part : profile.parts) {
    sum.forward_ms += part.forward_ms;
    sum.backward_ms += part.backward_ms;
    sum.kept += part.kept;
    sum.allocated += part.allocated;
  }
  const auto add = [&](const PartProfile& part) {
    rows.push_back({part.name, part.in_model ? ms_text(part.forward_ms) : "-",
                    part.in_model ? ms_text(part.backward_ms) : "-", ms_text(part.ms),
                    share_text(profile, part.ms), memory_text(part.kept), memory_text(part.allocated)});
  };
  for (const auto& part : profile.parts) add(part);
  sum.ms = profile.step_ms;
  add(sum);
  return table(rows, /*sum=*/true);
}

std::string operators_table(const Profile& profile) {
  std::vector<std::vector<std::string>> rows = {{"operator", "calls", "own ms", "share", "allocated"}};
  const auto add = [&](const OperatorProfile& row) {
    rows.push_back({row.name.substr(0, kLongestName), row.calls > 0 ? format("{:.6g}", row.calls) : "-",
                    ms_text(row.ms), share_text(profile, row.ms), memory_text(row.allocated)});
  };
  const auto& all = profile.operators;
  const auto shown = std::min(all.size(), kOperatorsShown);
  for (std::size_t i = 0; i < shown; ++i) add(all[i]);
  if (shown < all.size()) {
    OperatorProfile rest{.name = format("{} others", all.size() - shown)};
    for (std::size_t i = shown; i < all.size(); ++i) {
      rest.calls += all[i].calls;
      rest.ms += all[i].ms;
      rest.allocated += all[i].allocated;
    }
    add(rest);
  }
  return table(rows, /*sum=*/false);
}

void advise_on_small_work(const Profile& profile, std::vector<std::string>& advice) {
  double calls = 0, ms = 0;
  for (const auto& row : profile.operators) {
    calls += row.calls;
    if (row.calls > 0) ms += row.ms;
  }
  if (calls * kStartMs > kMuchStarting * profile.run.step_ms)
    advice.push_back(
        format("{:.0f} operators a step work {:.0f} us each, and starting one takes a few: larger batches "
               "(train.batch_size, "
               "now {}) give each more to do",
               calls, 1e3 * ms / calls, profile.run.samples));
  if (profile.run.step_ms > 0 && profile.step_ms > kMuchRecording * profile.run.step_ms)
    advice.push_back(
        format("recording made the step {:.1f} times as long: the shares of what calls many short operators "
               "are too large here",
               profile.step_ms / profile.run.step_ms));
}

void advise_on_machine(const ProfiledRun& run, std::vector<std::string>& advice) {
  if (run.device == "cpu" && run.threads < run.cores)
    advice.push_back(format("{} of {} cores are used: unset OMP_NUM_THREADS, or set runtime.threads",
                            run.threads, run.cores));
  if (run.load > run.cores + 0.5)
    advice.push_back(
        format("{:.1f} processes wanted {} cores in the last minute: the times above are longer than on a "
               "quiet machine",
               run.load, run.cores));
  if (run.bf16_is_slow)
    advice.push_back("this CPU does not multiply bf16 matrices natively: set runtime.precision = \"fp32\"");
}

}  // namespace

std::vector<std::string> advice(const Profile& profile) {
  std::vector<std::string> advice;
  const ProfiledRun& run = profile.run;
  const double waiting = 100 * share_of_phase(profile, Phase::kData);
  if (waiting > 100 * kMuchWaiting)
    advice.push_back(
        format("{:.0f} % of a step waits for its batch: raise train.workers (now {}), or store the data "
               "decoded and in the "
               "size that is trained on",
               waiting, run.workers));
  const double updating =
      100 * (share_of_phase(profile, Phase::kClip) + share_of_phase(profile, Phase::kOptimizer));
  if (updating > 100 * kMuchUpdating)
    advice.push_back(
        format("{:.0f} % of a step updates the weights, whatever the batch: raise train.batch_size (now {})",
               updating, run.samples));
  const double rest = 100 * share_of_part(profile, "other");
  if (rest > 100 * kMuchElse)
    advice.push_back(
        format("{:.0f} % of a step is neither model nor update, such as statistics for the log: raise "
               "train.log_every or "
               "train.micro_batch_size",
               rest));
  advise_on_small_work(profile, advice);
  advise_on_machine(run, advice);
  return advice;
}

std::string profile_text(const Profile& profile) {
  const ProfiledRun& run = profile.run;
  std::string text =
      format("{}: {} steps of {} samples recorded after {} others; {} thread{}, {}, {}\n",
             run.title.empty() ? "training" : run.title, profile.steps, run.samples, kProfileWarmUp,
             run.threads, run.threads == 1 ? "" : "s", run.device, run.precision);
  text += format("step    {:.1f} ms; {:.1f} ms while being recorded\n", run.step_ms, profile.step_ms);
  text += format("speed   {:.4g} samples/s", profile.samples_per_second());
  if (run.macs > 0)
    text += format(
        ", about {:.3g} GFLOP/s (6 x {} multiply-accumulates a sample; `stoa doctor` measures what this "
        "machine can do)",
        profile.gflops(), thousands(run.macs));
  text += format("\nmemory  {} at the peak of the process; tensors of a step take up to {}\n\n",
                 bytes(static_cast<double>(run.peak_memory)), bytes(profile.tensor_peak));
  text += parts_table(profile) +
          "\nkept: held where the backward pass begins; allocated: taken in a step, given back or not\n\n";
  text += operators_table(profile) + "\nWhat to change:\n";
  const auto lines = advice(profile);
  for (const auto& line : lines) text += "  - " + line + "\n";
  if (lines.empty()) text += "  nothing\n";
  return text;
}

Json profile_json(const Profile& profile) {
  const ProfiledRun& run = profile.run;
  Json parts = Json::array(), operators = Json::array();
  for (const auto& part : profile.parts) {
    Json row = {{"name", part.name}, {"in_model", part.in_model}};
    if (part.in_model) {
      row["forward_ms"] = part.forward_ms;
      row["backward_ms"] = part.backward_ms;
    }
    row["ms"] = part.ms;
    row["share"] = share(profile, part.ms);
    row["kept"] = part.kept;
    row["allocated"] = part.allocated;
    parts.push_back(row);
  }
  for (const auto& row : profile.operators)
    operators.push_back({{"name", row.name},
                         {"calls", row.calls},
                         {"own_ms", row.ms},
                         {"share", share(profile, row.ms)},
                         {"allocated", row.allocated}});
  return {{"title", run.title},
          {"steps", profile.steps},
          {"samples", run.samples},
          {"device", run.device},
          {"precision", run.precision},
          {"threads", run.threads},
          {"step_ms", run.step_ms},
          {"recorded_step_ms", profile.step_ms},
          {"samples_per_second", profile.samples_per_second()},
          {"gflops", profile.gflops()},
          {"peak_memory", run.peak_memory},
          {"tensor_peak", profile.tensor_peak},
          {"parts", parts},
          {"operators", operators},
          {"advice", advice(profile)}};
}

void write_profile(const std::filesystem::path& folder, const Profile& profile, const Recording& recording) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);  // where this fails, the first file says why
  write_trace(folder / "trace.json", recording);
  write_file_atomically(folder / "profile.txt", profile_text(profile));
  write_file_atomically(folder / "profile.json", profile_json(profile).dump(2) + "\n");
}

}  // namespace stoa
