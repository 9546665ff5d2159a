#include "stoa/tensor/runtime.h"

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <sched.h>
#include <sys/resource.h>
#include <torch/cuda.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <thread>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/progress.h"
#include "stoa/tensor/cpu.h"

namespace stoa {
namespace {

constexpr std::int64_t kMostThreads = 1024;

/// The device a name stands for; nothing for a name that is none. "auto" looks whether there is a GPU.
std::optional<c10::Device> parse_device(std::string_view name) {
  if (name == "auto") return c10::Device(torch::cuda::is_available() ? c10::kCUDA : c10::kCPU);
  if (name == "cpu") return c10::Device(c10::kCPU);
  if (name == "cuda") return c10::Device(c10::kCUDA);
  if (!name.starts_with("cuda:")) return {};
  c10::DeviceIndex index = 0;
  const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), index);
  if (error != std::errc() || end != name.data() + name.size() || index < 0) return {};
  return c10::Device(c10::kCUDA, index);
}

c10::Device resolve_device(const std::string& name) {
  auto device = *parse_device(name);
  if (device.is_cpu()) return device;
  if (!torch::cuda::is_available())
    throw DeviceError(format(
        "device \"{}\": LibTorch sees no CUDA GPU here; use \"cpu\" or \"auto\", or install a CUDA build of "
        "LibTorch and its driver (`stoa doctor` shows what is there)",
        name));
  if (!device.has_index()) device.set_index(0);
  if (device.index() >= torch::cuda::device_count())
    throw DeviceError(
        format("device \"{}\": this machine has {} CUDA GPUs, numbered from 0; use a smaller number", name,
               torch::cuda::device_count()));
  return device;
}

bool resolve_bf16(Precision precision, const c10::Device& device) {
  if (precision == Precision::kFp32) return false;
  const bool native = !device.is_cpu() || cpu_has_bf16();
  if (precision == Precision::kBf16 && !native)
    log_warning(
        "precision \"bf16\": this CPU has neither AMX-BF16 nor AVX512-BF16 and multiplies bf16 matrices over "
        "100 times "
        "slower than fp32 ones; \"auto\" picks fp32 here");
  return precision == Precision::kBf16 || native;
}

}  // namespace

void RuntimeOptions::visit(FieldVisitor& v) {
  v.field("device", device, "where it runs: auto (a GPU where there is one), cpu, cuda, cuda:1");
  v.field("threads", threads, "CPU threads; 0: OMP_NUM_THREADS, or every core this process may use");
  v.choice("precision", precision,
           {{"auto", Precision::kAuto}, {"fp32", Precision::kFp32}, {"bf16", Precision::kBf16}},
           "arithmetic of forward and backward passes; auto: bf16 where the device is fast at it");
}

void RuntimeOptions::validate() const {
  if (!parse_device(device))
    throw ConfigError(format(
        "`runtime.device` is \"{}\"; it must be \"auto\", \"cpu\", \"cuda\" or \"cuda:N\" with N from 0",
        device));
  if (threads < 0 || threads > kMostThreads)
    throw ConfigError(
        format("`runtime.threads` is {}; it must be 0 (every core) to {}", threads, kMostThreads));
}

Runtime configure_runtime(const RuntimeOptions& options) {
  options.validate();
  Runtime runtime;
  runtime.device = resolve_device(options.device);
  // OMP_NUM_THREADS is how users and schedulers ask every OpenMP program for fewer threads
  const char* asked = std::getenv("OMP_NUM_THREADS");
  const int by_default = asked != nullptr && std::atoi(asked) > 0 ? std::atoi(asked) : available_cores();
  runtime.threads = options.threads > 0 ? static_cast<int>(options.threads) : by_default;
  runtime.bf16 = resolve_bf16(options.precision, runtime.device);
  at::set_num_threads(runtime.threads);
  return runtime;
}

bool cpu_has_bf16() {
  return cpu_has("avx512_bf16") || cpu_has("amx_bf16");
}

int available_cores() {
  cpu_set_t allowed;
  int cores = static_cast<int>(std::thread::hardware_concurrency());
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) cores = CPU_COUNT(&allowed);
  if (const auto quota = cpu_quota()) cores = std::min(cores, static_cast<int>(*quota));
  return std::max(cores, 1);
}

std::int64_t peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} * 1024;
}

AutocastScope::AutocastScope(const Runtime& runtime)
    : device_(runtime.device.type()), active_(runtime.bf16 && !at::autocast::is_autocast_enabled(device_)) {
  if (!active_) return;
  at::autocast::set_autocast_dtype(device_, at::kBFloat16);
  at::autocast::set_autocast_enabled(device_, true);
  at::autocast::increment_nesting();
}

AutocastScope::~AutocastScope() {
  if (!active_) return;
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(device_, false);
}

}  // namespace stoa
