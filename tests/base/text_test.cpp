#include "stoa/base/text.h"

#include <gtest/gtest.h>

#include <limits>

namespace stoa {
namespace {

TEST(Text, EditDistanceCountsInsertionsDeletionsAndSubstitutions) {
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("abc", ""), 3);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("same", "same"), 0);
}

TEST(Text, EditDistanceCountsASwapOfNeighboursOnce) {
  EXPECT_EQ(edit_distance("experst", "experts"), 1);
  EXPECT_EQ(edit_distance("ab", "ba"), 1);
}

TEST(Text, NearestFindsTheLikelyMisspelling) {
  EXPECT_EQ(nearest("bach_size", {"steps", "batch_size", "patch_size"}), "batch_size");
  EXPECT_EQ(nearest("adam", {"sgd", "adamw", "lamb"}), "adamw");
}

TEST(Text, NearestOverlooksCapitalsAndHyphens) {
  EXPECT_EQ(nearest("Batch-Size", {"batch_size"}), "batch_size");
  EXPECT_EQ(nearest("SGD", {"lamb", "sgd"}), "sgd");
}

TEST(Text, NearestIsEmptyWhereNothingIsNear) {
  EXPECT_EQ(nearest("colour", {"steps", "batch_size"}), "");
  EXPECT_EQ(nearest("k", {"d"}), "");
  EXPECT_EQ(nearest("lr", {}), "");
}

TEST(Text, SuggestionNamesTheNearestOrAll) {
  EXPECT_EQ(suggestion("stesp", {"steps", "seed"}), "; did you mean `steps`?");
  EXPECT_EQ(suggestion("colour", {"steps", "seed"}), "; known: steps, seed");
}

TEST(Text, JoinPutsTheSeparatorBetween) {
  EXPECT_EQ(join({"a", "b", "c"}, ", "), "a, b, c");
  EXPECT_EQ(join({"a"}, ", "), "a");
  EXPECT_EQ(join({}, ", "), "");
}

TEST(Text, ThousandsAreGroupedInThrees) {
  EXPECT_EQ(thousands(0), "0");
  EXPECT_EQ(thousands(999), "999");
  EXPECT_EQ(thousands(1000), "1,000");
  EXPECT_EQ(thousands(29691369), "29,691,369");
  EXPECT_EQ(thousands(-123), "-123");
  EXPECT_EQ(thousands(-123456), "-123,456");
  EXPECT_EQ(thousands(std::numeric_limits<std::int64_t>::min()), "-9,223,372,036,854,775,808");
}

TEST(Text, DurationGrowsFromSecondsToHours) {
  EXPECT_EQ(duration(45), "45 s");
  EXPECT_EQ(duration(59.6), "1:00");
  EXPECT_EQ(duration(187), "3:07");
  EXPECT_EQ(duration(2 * 3600 + 187), "2:03:07");
}

TEST(Text, DurationOfNoNumberIsAQuestionMark) {
  EXPECT_EQ(duration(std::numeric_limits<double>::infinity()), "?");
  EXPECT_EQ(duration(std::numeric_limits<double>::quiet_NaN()), "?");
  EXPECT_EQ(duration(-1), "?");
}

TEST(Text, BytesUseBinaryUnits) {
  EXPECT_EQ(bytes(512), "512 B");
  EXPECT_EQ(bytes(3482), "3.4 KiB");
  EXPECT_EQ(bytes(12.0 * 1024 * 1024), "12.0 MiB");
  EXPECT_EQ(bytes(1.5 * 1024 * 1024 * 1024), "1.5 GiB");
  EXPECT_EQ(bytes(1024.0 * 1024 - 1), "1.0 MiB");
}

}  // namespace
}  // namespace stoa
