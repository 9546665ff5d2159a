#include <gtest/gtest.h>

#include "support/program.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

// What the doctor found, once for all tests of this file.
const Json& found() {
  static const Json json = json_of(run_stoa({"doctor", "--json"}));
  return json;
}

TEST(Doctor, MeasuresThisMachine) {
  ASSERT_TRUE(found().is_object());
  EXPECT_GT(found().at("gemm").at("fp32").at("gflops"), 0);
  EXPECT_GT(found().at("gemm").at("bf16").at("gflops"), 0);
  EXPECT_GT(found().at("copy_gb_per_s"), 0);
  EXPECT_GT(found().at("add_gb_per_s").at("stoa"), 0);
  EXPECT_GT(found().at("disk_free"), 0);
  EXPECT_TRUE(found().at("advice").is_array());
}

TEST(Doctor, LoopsOfATenRunOnAllThreads) {
  EXPECT_EQ(found().at("threads").at("parallel_for"), found().at("threads").at("used"));
}

TEST(Doctor, TheAllocatorKeepsLargeTensors) {
  EXPECT_EQ(found().at("allocator_keeps_memory"), true);
}

TEST(Doctor, TextEndsWithAdvice) {
  const Ended ended = run_stoa({"doctor", "--quiet"});
  EXPECT_EQ(ended.exit_code, 0);
  EXPECT_EQ(ended.errors, "");
  STOA_EXPECT_CONTAINS(ended.output, "What to change:");
}

}  // namespace
}  // namespace stoa::test
