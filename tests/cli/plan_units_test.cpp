#include "stoa/cli/plan_units.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa::cli {
namespace {

TEST(PlanUnits, SizesAreOfThousandsOrOf1024) {
  EXPECT_EQ(parse_bytes("--memory", "16GiB"), 16.0 * (1 << 30));
  EXPECT_EQ(parse_bytes("--memory", "512 MB"), 512e6);
  EXPECT_EQ(parse_bytes("--memory", "1.5tib"), 1.5 * 1024 * (1 << 30));
  EXPECT_EQ(parse_bytes("--memory", "1e9B"), 1e9);
}

TEST(PlanUnits, RatesAreOfBytesOrBits) {
  EXPECT_EQ(parse_rate("--bandwidth", "10Gbit/s"), 1.25e9);
  EXPECT_EQ(parse_rate("--bandwidth", "2GiB/s"), 2.0 * (1 << 30));
}

TEST(PlanUnits, TimesMayBeNone) {
  EXPECT_DOUBLE_EQ(parse_seconds("--latency", "50us"), 50e-6);
  EXPECT_EQ(parse_seconds("--latency", "0s"), 0);
}

TEST(PlanUnits, SayWhatIsWrong) {
  const auto error = [](const char* text) {
    return test::thrown<ConfigError>([&] { parse_bytes("--memory", text); });
  };
  STOA_EXPECT_CONTAINS(error("16"), "--memory is `16`: it has no unit; a size like 16GiB is needed");
  STOA_EXPECT_CONTAINS(error("16Gold"), "`Gold` is no unit of it");
  STOA_EXPECT_CONTAINS(error("0GiB"), "it must be above 0");
  STOA_EXPECT_CONTAINS(error("-2GiB"), "it must be above 0");
  STOA_EXPECT_CONTAINS(error("nan"), "it has no unit");
  STOA_EXPECT_CONTAINS(error("infGiB"), "it must be above 0");
  STOA_EXPECT_CONTAINS(error(""), "it begins with no number");
}

}  // namespace
}  // namespace stoa::cli
