#include "stoa/base/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "stoa/base/errors.h"

namespace stoa {
namespace {

struct Moments {
  double mean = 0, variance = 0;
};

template <class Draw>
Moments moments(int count, const Draw& draw) {
  double sum = 0, squares = 0;
  for (int i = 0; i < count; ++i) {
    const double x = draw();
    sum += x;
    squares += x * x;
  }
  const double mean = sum / count;
  return {mean, squares / count - mean * mean};
}

constexpr int kCount = 200000;

TEST(Random, BitsAreSplitMix64WithItsPublishedCheckValues) {
  RandomStream random(1234567);
  EXPECT_EQ(random.bits(), 6457827717110365317u);
  EXPECT_EQ(random.bits(), 3203168211198807973u);
  EXPECT_EQ(random.bits(), 9817491932198370423u);
  EXPECT_EQ(random.bits(), 4593380528125082431u);
  EXPECT_EQ(random.bits(), 16408922859458223821u);
  EXPECT_EQ(RandomStream(0).bits(), 0xe220a8397b1dcdafu);
}

// A resumed run must find the streams of the run before it, so these values are part of the checkpoint
// format.
TEST(Random, MixedSeedsNeverChange) {
  EXPECT_EQ(mix_seed({}), 0xe9e0033e3badaf36u);
  EXPECT_EQ(mix_seed({1, 2, 3}), 0x50e1dd29a353e88fu);
}

TEST(Random, MixedSeedsDependOnOrderAndNumberOfParts) {
  const std::set<std::uint64_t> seeds = {mix_seed({}),     mix_seed({0}),    mix_seed({0, 0}),
                                         mix_seed({1}),    mix_seed({1, 0}), mix_seed({0, 1}),
                                         mix_seed({1, 2}), mix_seed({2, 1})};
  EXPECT_EQ(seeds.size(), 8u);
}

TEST(Random, NeighbouringSeedsGiveUnrelatedStreams) {
  std::uint64_t sample = 0;
  const Moments m = moments(kCount, [&] { return RandomStream(mix_seed({7, sample++})).uniform(); });
  EXPECT_NEAR(m.mean, 0.5, 0.005);
  EXPECT_NEAR(m.variance, 1.0 / 12, 0.002);
}

TEST(Random, UniformNumbersLieInTheUnitIntervalEvenly) {
  RandomStream random(1);
  double lowest = 1, highest = 0;
  const Moments m = moments(kCount, [&] {
    const double x = random.uniform();
    lowest = std::min(lowest, x);
    highest = std::max(highest, x);
    return x;
  });
  EXPECT_GE(lowest, 0.0);
  EXPECT_LT(highest, 1.0);
  EXPECT_NEAR(m.mean, 0.5, 0.005);
  EXPECT_NEAR(m.variance, 1.0 / 12, 0.002);
}

TEST(Random, UniformInARangeNeverReachesItsEnd) {
  RandomStream random(2);
  const double high = std::nextafter(1.0, 2.0);  // the only number in [1, high) is 1
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(random.uniform(1.0, high), 1.0);
}

TEST(Random, IntegersReachBothEndsOfTheirRange) {
  RandomStream random(3);
  std::set<std::int64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random.integer(-2, 3));
  EXPECT_EQ(seen, (std::set<std::int64_t>{-2, -1, 0, 1, 2}));
}

// Bits modulo 3 * 2^62 would fall into the first third half of the time.
TEST(Random, IntegersHaveNoModuloBias) {
  RandomStream random(4);
  const std::int64_t low = std::numeric_limits<std::int64_t>::min(), high = std::int64_t{1} << 62;
  int first_third = 0;
  for (int i = 0; i < kCount; ++i) first_third += random.integer(low, high) < -high ? 1 : 0;
  EXPECT_NEAR(static_cast<double>(first_third) / kCount, 1.0 / 3, 0.01);
}

TEST(Random, AnEmptyRangeOfIntegersIsRefused) {
  RandomStream random(5);
  EXPECT_THROW(random.integer(3, 3), Error);
}

TEST(Random, NormalNumbersHaveTheMomentsOfTheStandardNormal) {
  RandomStream random(6);
  int beyond_two = 0;
  const Moments m = moments(kCount, [&] {
    const double x = random.normal();
    beyond_two += std::abs(x) > 2 ? 1 : 0;
    return x;
  });
  EXPECT_NEAR(m.mean, 0, 0.012);
  EXPECT_NEAR(m.variance, 1, 0.02);
  EXPECT_NEAR(static_cast<double>(beyond_two) / kCount, 0.0455, 0.003);
}

TEST(Random, GammaNumbersHaveMeanAndVarianceOfTheirShape) {
  RandomStream random(7);
  for (const double shape : {0.3, 1.0, 4.5}) {
    const Moments m = moments(kCount, [&] { return random.gamma(shape); });
    EXPECT_NEAR(m.mean, shape, 0.02 * (1 + shape)) << shape;
    EXPECT_NEAR(m.variance, shape, 0.04 * (1 + shape)) << shape;
  }
}

TEST(Random, BetaNumbersHaveTheMomentsOfTheBetaDistribution) {
  RandomStream random(8);
  for (const auto& [a, b] : {std::pair(0.2, 0.2), std::pair(2.0, 5.0)}) {
    const Moments m = moments(kCount, [&] { return random.beta(a, b); });
    EXPECT_NEAR(m.mean, a / (a + b), 0.005);
    EXPECT_NEAR(m.variance, a * b / ((a + b) * (a + b) * (a + b + 1)), 0.003);
  }
}

TEST(Random, BetaNumbersStayNumbersForTinyShapes) {
  RandomStream random(9);
  for (int i = 0; i < 1000; ++i) {
    const double x = random.beta(1e-4, 1e-4);
    ASSERT_GE(x, 0.0);
    ASSERT_LE(x, 1.0);
  }
}

TEST(Random, AShapeThatIsNotPositiveIsRefused) {
  RandomStream random(10);
  EXPECT_THROW(random.gamma(0), Error);
  EXPECT_THROW(random.beta(1, -1), Error);
}

TEST(Random, APermutationHoldsEachIndexOnce) {
  const auto order = permutation(1000, 11);
  const std::set<std::int64_t> distinct(order.begin(), order.end());
  EXPECT_EQ(distinct.size(), 1000u);
  EXPECT_EQ(*distinct.begin(), 0);
  EXPECT_EQ(*distinct.rbegin(), 999);
}

TEST(Random, APermutationIsFixedByItsSeed) {
  EXPECT_EQ(permutation(100, 12), permutation(100, 12));
  EXPECT_NE(permutation(100, 12), permutation(100, 13));
  EXPECT_TRUE(permutation(0, 1).empty());
}

TEST(Random, EachOrderOfAPermutationIsEquallyFrequent) {
  constexpr int kRounds = 24000;
  std::map<std::vector<std::int64_t>, int> counts;
  for (std::uint64_t seed = 0; seed < kRounds; ++seed) ++counts[permutation(4, seed)];
  ASSERT_EQ(counts.size(), 24u);
  double chi_square = 0;
  for (const auto& [order, count] : counts) chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_square, 49.7);  // 23 degrees of freedom, 0.1 %
}

}  // namespace
}  // namespace stoa
