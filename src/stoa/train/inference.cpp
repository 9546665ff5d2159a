#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>

#include "stoa/base/files.h"
#include "stoa/ops/keep_packed.h"
#include "stoa/train/trainer.h"

namespace stoa {
namespace {

constexpr int kWarmUps = 2, kFewest = 5, kMost = 50;
constexpr double kLongest = 1.5;  // seconds, once the fewest runs are done

/// Median seconds of the forward pass on one batch.
double median_seconds(Task& task, const Batch& batch, c10::Device device) {
  const c10::impl::VirtualGuardImpl guard(device.type());
  std::vector<double> seconds;
  double sum = 0;
  for (int i = -kWarmUps; i < kFewest || (i < kMost && sum < kLongest); ++i) {
    const auto start = std::chrono::steady_clock::now();
    task.infer(batch);
    if (!device.is_cpu())
      guard.synchronizeDevice(device.has_index() ? device.index() : guard.getDevice().index());
    const double taken = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (i < 0) continue;
    seconds.push_back(taken);
    sum += taken;
  }
  std::ranges::nth_element(seconds, seconds.begin() + std::ssize(seconds) / 2);
  return seconds[seconds.size() / 2];
}

}  // namespace

InferenceSpeed measure_inference(Task& task, const Runtime& runtime, std::int64_t batch_size) {
  const bool was_training = task.model().is_training();
  task.model().eval();
  const at::NoGradGuard no_gradients;
  const AutocastScope autocast(runtime);
  const ops::KeepPacked keep_packed;
  InferenceSpeed speed;
  const double batch = median_seconds(task, task.example(batch_size).to(runtime.device), runtime.device);
  speed.samples_per_second = static_cast<double>(batch_size) / batch;
  speed.latency_ms = 1e3 * median_seconds(task, task.example(1).to(runtime.device), runtime.device);
  task.model().train(was_training);
  return speed;
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
