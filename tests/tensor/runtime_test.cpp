#include "stoa/tensor/runtime.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/cuda.h>

#include <mutex>
#include <set>

#include "stoa/base/errors.h"
#include "stoa/tensor/cpu.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using test::thrown;

RuntimeOptions on_cpu() {
  RuntimeOptions options;
  options.device = "cpu";
  return options;
}

TEST(Runtime, ParallelForUsesEveryThreadItIsGiven) {
  at::set_num_threads(2);
  std::mutex mutex;
  std::set<int> threads;
  at::parallel_for(0, 2, 1, [&](std::int64_t, std::int64_t) {
    const std::lock_guard lock(mutex);
    threads.insert(at::get_thread_num());
  });
  EXPECT_EQ(threads, (std::set<int>{0, 1})) << "this file was compiled without OpenMP";
}

TEST(Runtime, ThreadsOptionSetsTheNumberOfThreads) {
  auto options = on_cpu();
  options.threads = 1;
  EXPECT_EQ(configure_runtime(options).threads, 1);
  EXPECT_EQ(at::get_num_threads(), 1);
}

TEST(Runtime, ZeroThreadsHonoursOmpNumThreads) {
  ASSERT_EQ(setenv("OMP_NUM_THREADS", "1", 1), 0);
  EXPECT_EQ(configure_runtime(on_cpu()).threads, 1);
}

TEST(Runtime, ZeroThreadsMeansEveryCoreOfThisProcess) {
  ASSERT_EQ(unsetenv("OMP_NUM_THREADS"), 0);
  EXPECT_EQ(configure_runtime(on_cpu()).threads, available_cores());
  EXPECT_EQ(at::get_num_threads(), available_cores());
}

TEST(Runtime, AvailableCoresRespectTheAffinityMask) {
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  if (sched_setaffinity(0, sizeof one, &one) != 0) GTEST_SKIP() << "the affinity mask cannot be set here";
  const int cores = available_cores();
  sched_setaffinity(0, sizeof before, &before);
  EXPECT_EQ(cores, 1);
}

TEST(Runtime, CpuMaxIsQuotaOverPeriod) {
  EXPECT_EQ(parse_cpu_max("150000 100000\n"), 1.5);
  EXPECT_EQ(parse_cpu_max("max 100000"), std::nullopt);
  EXPECT_EQ(parse_cpu_max("-1 100000"), std::nullopt);
  EXPECT_EQ(parse_cpu_max(""), std::nullopt);
}

TEST(Runtime, UnknownDevicesAreRefusedWithTheKnownOnes) {
  for (const char* name : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", ""}) {
    auto options = on_cpu();
    options.device = name;
    STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { configure_runtime(options); }), "\"cuda:N\"");
  }
}

TEST(Runtime, ThreadsOutOfRangeAreRefused) {
  for (const std::int64_t threads : {std::int64_t{-1}, std::int64_t{1} << 40}) {
    auto options = on_cpu();
    options.threads = threads;
    STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { configure_runtime(options); }), "`runtime.threads` is");
  }
}

TEST(Runtime, AMissingGpuIsADeviceError) {
  if (torch::cuda::is_available()) GTEST_SKIP() << "there is a GPU";
  auto options = on_cpu();
  options.device = "cuda:1";
  STOA_EXPECT_CONTAINS(thrown<DeviceError>([&] { configure_runtime(options); }), "\"cuda:1\"");
}

TEST(Runtime, AutoIsTheCpuWhereThereIsNoGpu) {
  if (torch::cuda::is_available()) GTEST_SKIP() << "there is a GPU";
  EXPECT_EQ(configure_runtime({}).device, c10::Device(c10::kCPU));
}

TEST(Runtime, AutoPrecisionFollowsTheCpu) {
  auto options = on_cpu();
  EXPECT_EQ(configure_runtime(options).bf16, cpu_has_bf16());
  options.precision = Precision::kFp32;
  EXPECT_FALSE(configure_runtime(options).bf16);
  options.precision = Precision::kBf16;
  EXPECT_TRUE(configure_runtime(options).bf16);
}

TEST(Runtime, AskingForBf16WithoutHardwareWarns) {
  auto options = on_cpu();
  options.precision = Precision::kBf16;
  testing::internal::CaptureStderr();
  configure_runtime(options);
  EXPECT_EQ(testing::internal::GetCapturedStderr().find("precision \"bf16\"") == std::string::npos,
            cpu_has_bf16());
}

TEST(Runtime, PeakMemoryCountsTouchedPages) {
  constexpr std::int64_t kSize = 256 << 20;
  const auto x = at::ones({kSize}, at::kByte);
  EXPECT_GE(peak_memory(), kSize);
}

TEST(Runtime, AutocastScopeComputesInBf16AndEnds) {
  const auto w = at::ones({4, 4}), x = at::ones({4, 4});
  Runtime runtime;
  runtime.bf16 = true;
  {
    const AutocastScope scope(runtime);
    { const AutocastScope inner(runtime); }
    EXPECT_EQ(at::matmul(x, w).scalar_type(), at::kBFloat16);
  }
  EXPECT_EQ(at::matmul(x, w).scalar_type(), at::kFloat);
}

TEST(Runtime, AutocastScopeForgetsItsCopiesOfTheWeights) {
  const auto x = at::ones({4, 4});
  const auto w = at::ones({4, 4}).requires_grad_();
  Runtime runtime;
  runtime.bf16 = true;
  const auto product = [&] {
    const AutocastScope scope(runtime);
    return at::matmul(x, w)[0][0].item<float>();
  };
  EXPECT_EQ(product(), 4);
  w.data().fill_(2);
  EXPECT_EQ(product(), 8);
}

TEST(Runtime, AutocastScopeDoesNothingInFp32) {
  const AutocastScope scope{Runtime()};
  EXPECT_EQ(at::matmul(at::ones({4, 4}), at::ones({4, 4})).scalar_type(), at::kFloat);
}

}  // namespace
}  // namespace stoa
