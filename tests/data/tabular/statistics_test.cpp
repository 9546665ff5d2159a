#include "stoa/data/tabular/statistics.h"

#include <gtest/gtest.h>

namespace stoa::test {
namespace {

TEST(FieldStatistics, CountsTheLongTail) {
  const FieldStatistics field = field_statistics("f", {1, 6, 0, 1, 2}, false);
  EXPECT_EQ(field.size, 5);
  EXPECT_EQ(field.seen, 4);
  EXPECT_EQ(field.once, 2);
  EXPECT_EQ(field.most, 6);
  EXPECT_DOUBLE_EQ(field.covered_by(1), 0.6);
  EXPECT_DOUBLE_EQ(field.covered_by(2), 0.8);
  EXPECT_DOUBLE_EQ(field.covered_by(10), 1.0);
}

TEST(FieldStatistics, UnknownRowsAreNoValueButCount) {
  const FieldStatistics field = field_statistics("f", {5, 5}, true);
  EXPECT_EQ(field.unknown, 5);
  EXPECT_EQ(field.seen, 1);
  EXPECT_DOUBLE_EQ(field.covered_by(1), 0.5);
}

TEST(FieldStatistics, QuantilesAreThoseOfTheSeenIds) {
  std::vector<std::uint32_t> counts(201);
  for (std::uint32_t i = 0; i <= 100; ++i) counts[i] = i + 1;
  const FieldStatistics field = field_statistics("f", counts, false);
  EXPECT_EQ(field.median, 51);
  EXPECT_EQ(field.ninety, 91);
  EXPECT_EQ(field.ninety_nine, 100);
}

TEST(FieldStatistics, AFieldWithoutRowsHasZeros) {
  const FieldStatistics field = field_statistics("f", {0, 0}, false);
  EXPECT_EQ(field.seen, 0);
  EXPECT_EQ(field.most, 0);
  EXPECT_EQ(field.covered_by(10), 0);
}

}  // namespace
}  // namespace stoa::test
