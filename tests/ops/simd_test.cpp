#include "stoa/ops/simd.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "stoa/base/errors.h"
#include "support/self_process.h"
#include "support/thrown.h"

namespace stoa::ops {
namespace {

TEST(Simd, LevelsBeginWithTheBaseline) {
  EXPECT_EQ(simd_levels().front(), "baseline");
}

TEST(Simd, EveryLevelOfTheMachineCanBeForced) {
  for (const auto& level : simd_levels()) {
    limit_simd(level);
    EXPECT_EQ(simd_level(), level);
  }
}

TEST(Simd, AutoIsTheWidest) {
  limit_simd("baseline");
  limit_simd("auto");
  EXPECT_EQ(simd_level(), simd_levels().back());
}

TEST(Simd, UnknownLevelIsRefusedWithTheChoices) {
  const auto message = test::thrown<ConfigError>([] { limit_simd("mmx"); });
  STOA_EXPECT_CONTAINS(message, "STOA_SIMD: `mmx` is no SIMD level; needed is one of auto, baseline");
}

// In a process of its own, as the variable is read once.
TEST(Simd, DISABLED_ReadsTheVariable) {
  const auto value = test::SelfProcess::argument();
  ::setenv("STOA_SIMD", value.c_str(), 1);
  if (value == "mmx")
    STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([] { choose_simd(); }), "`mmx`");
  else
    EXPECT_EQ(simd_level(), value.empty() ? simd_levels().back() : value);
}

TEST(Simd, ObeysTheVariable) {
  auto values = simd_levels();
  values.insert(values.end(), {"", "mmx"});
  for (const auto& value : values)
    EXPECT_EQ(test::SelfProcess("Simd.DISABLED_ReadsTheVariable", value).wait(), 0) << value;
}

}  // namespace
}  // namespace stoa::ops
