#include "stoa/data/parallel.h"

#include <gtest/gtest.h>

#include <vector>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa {
namespace {

TEST(ForEachParallel, CallsEveryNumberOnce) {
  std::vector<int> calls(1000);
  for_each_parallel(1000, [&](std::int64_t i) { ++calls[i]; });
  EXPECT_EQ(calls, std::vector<int>(1000, 1));
}

TEST(ForEachParallel, DoesNothingForNone) {
  for_each_parallel(0, [](std::int64_t) { FAIL(); });
}

TEST(ForEachParallel, ThrowsTheErrorOfTheLowestNumber) {
  const auto work = [] {
    for_each_parallel(100, [](std::int64_t i) {
      if (i >= 40) throw DataError(std::to_string(i));
    });
  };
  for (int i = 0; i < 20; ++i) EXPECT_EQ(test::thrown<DataError>(work), "40");
}

}  // namespace
}  // namespace stoa
