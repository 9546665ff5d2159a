#include "stoa/cli/table.h"

#include <gtest/gtest.h>

namespace stoa::cli {
namespace {

TEST(Table, FirstColumnIsFlushLeftAndOthersFlushRight) {
  EXPECT_EQ(text_table({{"part", "count"}, {"attention", "7"}, {"mlp", "1,234"}}),
            "part       count\n----------------\nattention      7\nmlp        1,234\n");
}

TEST(Table, CountsCharactersRatherThanBytes) {
  EXPECT_EQ(text_table({{"é", "a"}, {"ee", "b"}}), "é   a\n-----\nee  b\n");
}

TEST(Table, AnEmptyRowDrawsARule) {
  EXPECT_EQ(text_table({{"a", "b"}, {}, {"c", "d"}}), "a  b\n----\n----\nc  d\n");
}

}  // namespace
}  // namespace stoa::cli
