#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "stoa/train/events.h"
#include "stoa/train/trainer.h"
#include "support/toy_task.h"

namespace stoa::test {

/// A recipe that uses all a checkpoint must carry: dropout, averaged weights, unequal micro-batches, side
/// losses.
inline std::vector<std::string> everything(std::vector<std::string> more = {}) {
  more.insert(more.end(),
              {"model.dropout=0.3", "model.activity_cost=0.1", "train.ema=0.9", "train.micro_batch_size=3",
               "train.eval_every=4", "task.weighted=true", "checkpoint.keep_last=100"});
  return more;
}

inline TrainResult start(const std::filesystem::path& out, const std::vector<std::string>& set) {
  return run_training({.recipe = toy_config(set), .out = out, .resume = {}, .resume_step = {}},
                      toy_catalog());
}

inline TrainResult resume(const std::filesystem::path& run, std::optional<std::int64_t> step = std::nullopt) {
  return run_training({.recipe = {}, .out = {}, .resume = run, .resume_step = step}, toy_catalog());
}

inline Checkpoint checkpoint_of(const std::filesystem::path& run, std::int64_t step) {
  return CheckpointStore(run / "checkpoints").load(step);
}

/// The log of a run without what a clock says.
inline std::vector<Json> timeless_log(const std::filesystem::path& run) {
  auto lines = read_events(run);
  for (Json& line : lines)
    for (const char* name : {"samples_per_second", "seconds"}) line.erase(name);
  return lines;
}

inline void expect_equal(const std::map<std::string, at::Tensor>& a,
                         const std::map<std::string, at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
}

/// Two runs ended alike to the last bit: weights, optimiser, averages, log.
inline void expect_same_end(const std::filesystem::path& a, const std::filesystem::path& b,
                            std::int64_t step) {
  const Checkpoint x = checkpoint_of(a, step), y = checkpoint_of(b, step);
  expect_equal(x.model, y.model);
  expect_equal(x.optimizer, y.optimizer);
  expect_equal(x.average, y.average);
  EXPECT_EQ(x.state["metrics"], y.state["metrics"]);
  EXPECT_EQ(timeless_log(a), timeless_log(b));
}

}  // namespace stoa::test
