#include "stoa/optim/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa::optim {
namespace {

constexpr ScheduleKind kKinds[] = {ScheduleKind::kConstant, ScheduleKind::kLinear,
                                   ScheduleKind::kCosine,   ScheduleKind::kPolynomial,
                                   ScheduleKind::kOneCycle, ScheduleKind::kWarmupStableDecay};

ScheduleOptions schedule(ScheduleKind kind, double warmup = 0, double start = 0, double end = 0) {
  ScheduleOptions options;
  options.kind = kind;
  options.warmup = warmup;
  options.start = start;
  options.end = end;
  return options;
}

TEST(Schedule, WideNetsRatesOf300EpochsWith30OfWarmup) {
  const auto options = schedule(ScheduleKind::kLinear, 9390, 1e-5, 1e-5);
  const auto rate = [&](std::int64_t step) { return learning_rate(options, 0.01, step, 93900); };
  EXPECT_NEAR(rate(0), 1e-5, 1e-15);
  EXPECT_NEAR(rate(4695), 0.005005, 1e-15);
  EXPECT_NEAR(rate(9390), 0.01, 1e-15);
  EXPECT_NEAR(rate(51645), 0.005005, 1e-15);
  EXPECT_NEAR(rate(93900), 1e-5, 1e-15);
}

TEST(Schedule, FirstUpdateUsesTheRateOfStepZeroUnlessShifted) {
  auto options = schedule(ScheduleKind::kLinear, 10, 1e-5);
  EXPECT_EQ(learning_rate(options, 0.01, 0, 100), 1e-5);
  options.shift = 1;
  EXPECT_NEAR(learning_rate(options, 0.01, 0, 100), 1e-5 + (0.01 - 1e-5) / 10, 1e-15);
}

TEST(Schedule, WarmupBelowOneIsAShareOfAllSteps) {
  const auto share = schedule(ScheduleKind::kCosine, 0.1), steps = schedule(ScheduleKind::kCosine, 48);
  for (std::int64_t step = 0; step < 480; ++step)
    EXPECT_EQ(learning_rate(share, 1, step, 480), learning_rate(steps, 1, step, 480));
}

TEST(Schedule, AShareThatRoundsToNothingIsOneStep) {
  EXPECT_EQ(learning_rate(schedule(ScheduleKind::kLinear, 0.01), 1, 0, 7), 0);
  EXPECT_EQ(learning_rate(schedule(ScheduleKind::kLinear, 0.01), 1, 1, 7), 1);
}

TEST(Schedule, AWholeDecayDropsWhereTheWarmupEnds) {
  auto options = schedule(ScheduleKind::kLinear, 10);
  options.whole_decay = true;
  EXPECT_NEAR(learning_rate(options, 1, 9, 100), 0.9, 1e-12);
  EXPECT_NEAR(learning_rate(options, 1, 10, 100), 1 - 10.0 / 100, 1e-12);
  EXPECT_NEAR(learning_rate(options, 1, 55, 100), 0.45, 1e-12);
  EXPECT_NEAR(learning_rate(options, 1, 100, 100), 0, 1e-12);
}

TEST(Schedule, NoWarmupStartsAtThePeak) {
  for (const auto kind : kKinds)
    if (kind != ScheduleKind::kOneCycle) {
      EXPECT_EQ(learning_rate(schedule(kind), 0.5, 0, 100), 0.5);
    }
}

TEST(Schedule, HandValuesHalfwayDown) {
  const auto half = [](ScheduleOptions options) { return learning_rate(options, 1, 60, 100); };
  EXPECT_DOUBLE_EQ(half(schedule(ScheduleKind::kConstant, 20)), 1);
  EXPECT_DOUBLE_EQ(half(schedule(ScheduleKind::kLinear, 20, 0, 0.2)), 0.6);
  EXPECT_DOUBLE_EQ(half(schedule(ScheduleKind::kCosine, 20, 0, 0.2)), 0.6);
  auto square = schedule(ScheduleKind::kPolynomial, 20, 0, 0.2);
  square.power = 2;
  EXPECT_DOUBLE_EQ(half(square), 0.4);
}

TEST(Schedule, CosineAQuarterDown) {
  EXPECT_NEAR(learning_rate(schedule(ScheduleKind::kCosine), 1, 25, 100), 0.5 + std::sqrt(0.125), 1e-15);
}

TEST(Schedule, WarmupStableDecayHoldsThePeakUntilItsLastSteps) {
  auto options = schedule(ScheduleKind::kWarmupStableDecay, 10, 0, 0.1);
  options.decay = 0.2;
  const auto rate = [&](std::int64_t step) { return learning_rate(options, 1, step, 100); };
  EXPECT_DOUBLE_EQ(rate(5), 0.5);
  EXPECT_EQ(rate(10), 1);
  EXPECT_EQ(rate(80), 1);
  EXPECT_DOUBLE_EQ(rate(90), 0.55);
  EXPECT_DOUBLE_EQ(rate(100), 0.1);
}

TEST(Schedule, WarmupStableDecayMayCountItsDecayInSteps) {
  auto share = schedule(ScheduleKind::kWarmupStableDecay, 10), steps = share;
  share.decay = 0.2;
  steps.decay = 20;
  for (std::int64_t step = 0; step < 100; ++step)
    EXPECT_EQ(learning_rate(share, 1, step, 100), learning_rate(steps, 1, step, 100));
}

TEST(Schedule, OneCycleRisesForThirtyPercentAndEndsFarBelow) {
  const auto rate = [](std::int64_t step) {
    return learning_rate(schedule(ScheduleKind::kOneCycle), 1, step, 10);
  };
  EXPECT_NEAR(rate(0), 0.04, 1e-15);
  EXPECT_NEAR(rate(1), 0.52, 1e-15);
  EXPECT_DOUBLE_EQ(rate(2), 1);
  EXPECT_NEAR(rate(4), 4e-6 + (1 - 4e-6) * (1 + std::cos(M_PI * 2 / 7)) / 2, 1e-15);
  EXPECT_DOUBLE_EQ(rate(9), 4e-6);
}

TEST(Schedule, OneCyclesLowRatesAndRiseCanBeSet) {
  const auto options = schedule(ScheduleKind::kOneCycle, 0.5, 0.2, 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(options, 1, 0, 10), 0.2);
  EXPECT_DOUBLE_EQ(learning_rate(options, 1, 2, 10), 0.6);
  EXPECT_DOUBLE_EQ(learning_rate(options, 1, 4, 10), 1);
  EXPECT_DOUBLE_EQ(learning_rate(options, 1, 9, 10), 0.1);
}

TEST(Schedule, EveryKindMovesWithoutJumps) {
  for (const auto kind : kKinds) {
    const auto options = schedule(kind, 0.1, 1e-5, 1e-5);
    for (std::int64_t step = 0; step < 999; ++step)
      EXPECT_LT(std::abs(learning_rate(options, 1, step + 1, 1000) - learning_rate(options, 1, step, 1000)),
                0.02)
          << static_cast<int>(kind) << " at " << step;
  }
}

TEST(Schedule, EveryKindStaysBetweenZeroAndThePeakForAnyNumberOfSteps) {
  for (const auto kind : kKinds)
    for (const double warmup : {0.0, 0.3, 2.0, 50.0})
      for (std::int64_t total = 1; total < 9; ++total)
        for (std::int64_t step = 0; step <= total; ++step) {
          auto options = schedule(kind, warmup);
          options.shift = step % 2;
          const double rate = learning_rate(options, 1, step, total);
          EXPECT_TRUE(rate >= 0 && rate <= 1)
              << rate << ": kind " << static_cast<int>(kind) << ", step " << step << " of " << total;
        }
}

TEST(Schedule, SettingsOutOfRangeAreRefusedByName) {
  const auto refusal = [](double ScheduleOptions::*field, double value) {
    ScheduleOptions options;
    options.*field = value;
    return test::thrown<ConfigError>([&] { options.validate(); });
  };
  STOA_EXPECT_CONTAINS(refusal(&ScheduleOptions::warmup, -1), "`schedule.warmup` is -1");
  STOA_EXPECT_CONTAINS(refusal(&ScheduleOptions::start, NAN), "`schedule.start` is nan");
  STOA_EXPECT_CONTAINS(refusal(&ScheduleOptions::end, -0.1), "`schedule.end` is -0.1");
  STOA_EXPECT_CONTAINS(refusal(&ScheduleOptions::power, 0), "`schedule.power` is 0");
  STOA_EXPECT_CONTAINS(refusal(&ScheduleOptions::decay, -2), "`schedule.decay` is -2");
}

}  // namespace
}  // namespace stoa::optim
