#include "stoa/cli/measure.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <set>
#include <thread>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "stoa/base/errors.h"
#include "stoa/base/interrupt.h"
#include "stoa/tensor/host_allocator.h"

namespace stoa::cli {

namespace {

constexpr double kBudget = 0.6;  // seconds for the repetitions of one measurement
constexpr int kRepeats = 10;
constexpr std::int64_t kElements = std::int64_t{1} << 24;  // 64 MiB of fp32: larger than any cache

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Seconds of the fastest of several runs, after one that warms up.
double fastest(const std::function<void()>& work) {
  if (interrupted()) throw Interrupted("interrupted");
  double best = seconds_of(work), spent = best;
  for (int i = 0; i < kRepeats && spent < kBudget; ++i) {
    const double seconds = seconds_of(work);
    best = std::min(best, seconds);
    spent += seconds;
  }
  return best;
}

}  // namespace

GemmSpeed measure_gemm(c10::ScalarType type) {
  const c10::InferenceMode no_gradients;
  GemmSpeed best;
  for (const std::int64_t size : {512, 1024, 2048}) {
    const auto a = at::rand({size, size}).to(type), b = at::rand({size, size}).to(type);
    auto product = at::empty({size, size}, type);
    const double seconds = fastest([&] { at::mm_out(product, a, b); });
    const auto n = static_cast<double>(size);
    const double gflops = 2e-9 * n * n * n / seconds;
    if (gflops > best.gflops) best = {size, gflops};
    if (seconds * 8 > 2 * kBudget) break;  // the next size does 8 times the work
  }
  return best;
}

double measure_copy() {
  const c10::InferenceMode no_gradients;
  const auto from = at::ones({4 * kElements}), to = at::zeros({4 * kElements});
  const double seconds = fastest([&] { to.copy_(from); });
  return 2e-9 * static_cast<double>(from.nbytes()) / seconds;
}

double measure_add() {
  const c10::InferenceMode no_gradients;
  const auto a = at::ones({kElements}), b = at::ones({kElements});
  const double seconds = fastest([&] { at::add(a, b); });
  return 3e-9 * static_cast<double>(a.nbytes()) / seconds;
}

double measure_add_with_default_allocator() {
#ifdef __GLIBC__
  constexpr int kGlibcThreshold = 128 << 10;
  release_kept_memory();
  c10::SetCPUAllocator(c10::GetDefaultCPUAllocator());
  mallopt(M_MMAP_THRESHOLD, kGlibcThreshold);
  mallopt(M_TRIM_THRESHOLD, kGlibcThreshold);
  const double speed = measure_add();
  configure_allocator();
  return speed;
#else
  return 0;
#endif
}

bool allocator_keeps_memory() {
  const auto address = [] { return at::empty({kElements}).data_ptr(); };
  return address() == address();
}

int count_parallel_threads() {
  std::mutex mutex;
  std::set<std::thread::id> threads;
  at::parallel_for(0, 64 * at::get_num_threads(), 1, [&](std::int64_t, std::int64_t) {
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  return static_cast<int>(threads.size());
}

}  // namespace stoa::cli
