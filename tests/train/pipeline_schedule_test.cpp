#include "stoa/train/pipeline_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace stoa {
namespace {

constexpr auto kGPipe = PipelineSchedule::kGPipe;
constexpr auto kAlternating = PipelineSchedule::kOneForwardOneBackward;

/// "F0 F1 B0 ..."
std::string text(const std::vector<PipelineStep>& steps) {
  std::string text;
  for (const auto& [forward, micro_batch] : steps)
    text += (text.empty() ? "" : " ") + std::string(forward ? "F" : "B") + std::to_string(micro_batch);
  return text;
}

struct Shape {
  std::int64_t stages, micro_batches;
};
const std::vector<Shape> kShapes = {{1, 1}, {1, 5}, {2, 1}, {2, 4}, {3, 2}, {4, 3}, {4, 4}, {4, 9}, {5, 32}};

/// The most micro-batches whose backward pass is still to come.
std::int64_t most_held(const std::vector<PipelineStep>& steps) {
  std::int64_t held = 0, most = 0;
  for (const auto& step : steps) most = std::max(most, held += step.forward ? 1 : -1);
  return most;
}

/// Runs all stages, each pass as soon as its stage and what it waits for are ready, a forward pass taking 1
/// and a backward pass 2 units of time. Returns when the last one ends, or -1 where they wait for one
/// another.
std::int64_t duration(PipelineSchedule schedule, const Shape& shape) {
  std::vector<std::vector<PipelineStep>> steps;
  std::vector<std::size_t> next(static_cast<std::size_t>(shape.stages));
  std::vector<std::int64_t> free(static_cast<std::size_t>(shape.stages));
  for (std::int64_t stage = 0; stage < shape.stages; ++stage)
    steps.push_back(pipeline_steps(schedule, stage, shape.stages, shape.micro_batches));
  std::map<std::pair<bool, std::pair<std::int64_t, std::int64_t>>, std::int64_t> ends;
  for (bool moved = true; moved;) {
    moved = false;
    for (std::size_t s = 0; s < steps.size(); ++s)
      for (; next[s] < steps[s].size(); ++next[s], moved = true) {
        const auto [forward, micro_batch] = steps[s][next[s]];
        const auto stage = static_cast<std::int64_t>(s), from = stage + (forward ? -1 : 1);
        std::int64_t ready = 0;
        if (from >= 0 && from < shape.stages) {
          const auto waited = ends.find({forward, {from, micro_batch}});
          if (waited == ends.end()) break;
          ready = waited->second;
        }
        free[s] = std::max(free[s], ready) + (forward ? 1 : 2);
        ends[{forward, {stage, micro_batch}}] = free[s];
      }
  }
  for (std::size_t s = 0; s < steps.size(); ++s)
    if (next[s] < steps[s].size()) return -1;
  return *std::ranges::max_element(free);
}

TEST(PipelineSchedule, GoesForwardAndBackInTurnsInOneStage) {
  EXPECT_EQ(text(pipeline_steps(kAlternating, 0, 1, 3)), "F0 B0 F1 B1 F2 B2");
  EXPECT_TRUE(pipeline_steps(kAlternating, 0, 1, 0).empty());
}

TEST(PipelineSchedule, OfThreeStagesIsThePublishedOne) {
  EXPECT_EQ(text(pipeline_steps(kAlternating, 0, 3, 4)), "F0 F1 F2 B0 F3 B1 B2 B3");
  EXPECT_EQ(text(pipeline_steps(kAlternating, 1, 3, 4)), "F0 F1 B0 F2 B1 F3 B2 B3");
  EXPECT_EQ(text(pipeline_steps(kAlternating, 2, 3, 4)), "F0 B0 F1 B1 F2 B2 F3 B3");
  EXPECT_EQ(text(pipeline_steps(kGPipe, 1, 3, 3)), "F0 F1 F2 B0 B1 B2");
}

TEST(PipelineSchedule, MakesEveryPassOnceInTheOrderOfTheMicroBatches) {
  for (const auto schedule : {kGPipe, kAlternating})
    for (const auto& shape : kShapes)
      for (std::int64_t stage = 0; stage < shape.stages; ++stage) {
        std::int64_t forward = 0, backward = 0;
        for (const auto& step : pipeline_steps(schedule, stage, shape.stages, shape.micro_batches)) {
          auto& next = step.forward ? forward : backward;
          EXPECT_EQ(step.micro_batch, next++);
          EXPECT_LE(backward, forward);
        }
        EXPECT_EQ(forward, shape.micro_batches);
        EXPECT_EQ(backward, shape.micro_batches);
      }
}

TEST(PipelineSchedule, HoldsAsManyMicroBatchesAsStagesAreLeft) {
  for (const auto& shape : kShapes)
    for (std::int64_t stage = 0; stage < shape.stages; ++stage) {
      EXPECT_EQ(most_held(pipeline_steps(kAlternating, stage, shape.stages, shape.micro_batches)),
                std::min(shape.micro_batches, shape.stages - stage));
      EXPECT_EQ(most_held(pipeline_steps(kGPipe, stage, shape.stages, shape.micro_batches)),
                shape.micro_batches);
    }
}

TEST(PipelineSchedule, IdlesAsLongAsTheShareSays) {
  EXPECT_DOUBLE_EQ(idle_share(4, 9), 3.0 / 12);
  EXPECT_EQ(idle_share(1, 7), 0);
  for (const auto schedule : {kGPipe, kAlternating})
    for (const auto& shape : kShapes) {
      const auto all = static_cast<double>(duration(schedule, shape));
      const auto work = static_cast<double>(3 * shape.micro_batches);
      EXPECT_DOUBLE_EQ(1 - work / all, idle_share(shape.stages, shape.micro_batches))
          << shape.stages << " stages, " << shape.micro_batches << " micro-batches";
    }
}

TEST(PipelineSchedule, SaysHowLongStagesWait) {
  EXPECT_EQ(idle_text(4, 64, 2),
            "4 stages, 32 micro-batches a step: each stage waits 9 % of the time or more");
  EXPECT_EQ(idle_text(2, 5, 0),
            "2 stages, 1 micro-batch a step: each stage waits 50 % of the time or more; a smaller "
            "`train.micro_batch_size` makes it less");
}

}  // namespace
}  // namespace stoa
