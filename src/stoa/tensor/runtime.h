#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>

#include "stoa/base/options.h"

namespace stoa {

enum class Precision { kAuto, kFp32, kBf16 };

/// Where and how the arithmetic runs.
struct RuntimeOptions {
  std::string device = "auto";  ///< "auto" (cuda where there is one), "cpu", "cuda", "cuda:1"
  std::int64_t threads = 0;  ///< CPU threads; 0 uses OMP_NUM_THREADS, or every core this process may run on
  Precision precision = Precision::kAuto;

  void visit(FieldVisitor& v);
  void validate() const;
};

/// What the options came to on this machine.
struct Runtime {
  c10::Device device = c10::kCPU;
  int threads = 1;
  bool bf16 = false;  ///< forward passes run under bf16 autocast; weights stay fp32
};

/// Sets threads and resolves device and precision: `auto` is bf16 on a GPU and on CPUs with AMX-BF16 or
/// AVX512-BF16, fp32 elsewhere; asking for bf16 on other CPUs warns (it is over 100 times slower there).
/// Throws ConfigError for an unknown device, DeviceError for one that is not there.
Runtime configure_runtime(const RuntimeOptions& options);

/// True if the CPU multiplies bf16 matrices natively.
bool cpu_has_bf16();

/// Cores this process may use (affinity mask and cgroup quota respected).
int available_cores();

/// Peak resident memory of this process so far, in bytes.
std::int64_t peak_memory();

/// Runs its scope under bf16 autocast where `runtime.bf16` says so, and forgets the cached weight copies at
/// the end.
class AutocastScope {
 public:
  explicit AutocastScope(const Runtime& runtime);
  ~AutocastScope();
  AutocastScope(const AutocastScope&) = delete;
  AutocastScope& operator=(const AutocastScope&) = delete;

 private:
  c10::DeviceType device_;
  bool active_;
};

}  // namespace stoa
