#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>

#include "stoa/base/files.h"
#include "stoa/ops/keep_packed.h"
#include "stoa/train/trainer.h"

namespace stoa {
namespace {

constexpr int kWarmUps = 2, kFewest = 5;
constexpr double kLongest = 1.5;  // seconds, once the fewest runs are done

/// Seconds of forward passes on one batch, ascending; `most` of them where that does not take too long.
std::vector<double> time_passes(Task& task, const Batch& batch, c10::Device device, int most) {
  const c10::impl::VirtualGuardImpl guard(device.type());
  std::vector<double> seconds;
  double sum = 0;
  for (int i = -kWarmUps; i < kFewest || (i < most && sum < kLongest); ++i) {
    const auto start = std::chrono::steady_clock::now();
    task.infer(batch);
    if (!device.is_cpu())
      guard.synchronizeDevice(device.has_index() ? device.index() : guard.getDevice().index());
    const double taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (i < 0) continue;
    seconds.push_back(taken);
    sum += taken;
  }
  std::ranges::sort(seconds);
  return seconds;
}

/// How a model answers: in evaluation mode, without gradients, in the run's precision.
class InferenceScope {
 public:
  InferenceScope(torch::nn::Module& model, const Runtime& runtime)
      : model_(model), was_training_(model.is_training()), autocast_(runtime) {
    model_.eval();
  }
  ~InferenceScope() { model_.train(was_training_); }
  InferenceScope(const InferenceScope&) = delete;
  InferenceScope& operator=(const InferenceScope&) = delete;

 private:
  torch::nn::Module& model_;
  bool was_training_;
  at::NoGradGuard no_gradients_;
  AutocastScope autocast_;
  ops::KeepPacked keep_packed_;
};

}  // namespace

InferenceSpeed measure_inference(Task& task, const Runtime& runtime, std::int64_t batch_size) {
  constexpr int kMost = 50;
  const InferenceScope scope(task.model(), runtime);
  const auto median = [&](std::int64_t samples) {
    const auto seconds = time_passes(task, task.example(samples).to(runtime.device), runtime.device, kMost);
    return seconds[seconds.size() / 2];
  };
  return {static_cast<double>(batch_size) / median(batch_size), 1e3 * median(1)};
}

std::vector<Latency> measure_latency(Task& task, const Runtime& runtime,
                                     const std::vector<std::int64_t>& sizes) {
  constexpr int kMost = 2000;
  const InferenceScope scope(task.model(), runtime);
  std::vector<Latency> found;
  for (const std::int64_t samples : sizes) {
    const auto seconds = time_passes(task, task.example(samples).to(runtime.device), runtime.device, kMost);
    found.push_back({samples, std::ssize(seconds), 1e3 * seconds[seconds.size() / 2],
                     1e3 * seconds[seconds.size() * 99 / 100]});
  }
  return found;
}

void write_evaluation(const std::filesystem::path& run, const Evaluation& evaluation,
                      const InferenceSpeed& speed, std::int64_t step) {
  Json exhibits = Json::array();
  for (const auto& exhibit : evaluation.exhibits) exhibits.push_back(exhibit.to_json());
  const Json json = {
      {"step", step},
      {"metrics", evaluation.metrics.to_json()},
      {"speed", {{"samples_per_second", speed.samples_per_second}, {"latency_ms", speed.latency_ms}}},
      {"exhibits", exhibits}};
  write_file_atomically(run / "evaluation.json", json.dump(2) + "\n");
}

}  // namespace stoa
