#include "stoa/train/initial.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "stoa/tensor/safetensors.h"
#include "support/temp_dir.h"
#include "support/thrown.h"
#include "support/toy_runs.h"

namespace stoa {
namespace {

using test::checkpoint_of;
using test::start;
using test::thrown;
using test::ToyScope;

std::string weights_are(const std::filesystem::path& path) {
  return "initial.weights='" + path.string() + "'";
}

/// Weights that a run of one step, with a learning rate of 0, starts from.
nn::Weights first_weights(const std::filesystem::path& run, std::vector<std::string> set) {
  set.insert(set.end(), {"train.steps=1", "optimizer.lr=0", "train.seed=9"});
  start(run, set);
  return checkpoint_of(run, 1).model;
}

Checkpoint last_checkpoint(const std::filesystem::path& run) {
  return checkpoint_of(run, CheckpointStore(run / "checkpoints").steps().back());
}

TEST(Initial, ARunStartsFromTheLastWeightsOfAnother) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "first", {});
  const auto trained = last_checkpoint(dir / "first").model;
  EXPECT_TRUE(first_weights(dir / "second", {weights_are(dir / "first")})
                  .at("in.weight")
                  .equal(trained.at("in.weight")));
}

TEST(Initial, TheAveragedWeightsAreTakenWhereTheRunKeepsThem) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "first", {"train.ema=0.9"});
  const auto average = last_checkpoint(dir / "first").average;
  EXPECT_TRUE(first_weights(dir / "second", {weights_are(dir / "first")})
                  .at("in.weight")
                  .equal(average.at("in.weight")));
}

TEST(Initial, AFileWillDo) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "first", {});
  const auto weights = last_checkpoint(dir / "first").model;
  save_safetensors(dir / "weights.safetensors", {weights, {}});
  const auto taken = first_weights(dir / "second", {weights_are(dir / "weights.safetensors")});
  EXPECT_TRUE(taken.at("out.weight").equal(weights.at("out.weight")));
}

TEST(Initial, FreshTensorsKeepTheirDrawnValues) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "first", {});
  const auto drawn = first_weights(dir / "drawn", {});
  const auto taken = first_weights(dir / "second", {weights_are(dir / "first"), "initial.fresh=['out']"});
  EXPECT_TRUE(taken.at("out.weight").equal(drawn.at("out.weight")));
  EXPECT_FALSE(taken.at("in.weight").equal(drawn.at("in.weight")));
}

TEST(Initial, AResumedRunDoesNotStartFromThemAgain) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "first", {});
  const std::vector<std::string> set = {weights_are(dir / "first"), "checkpoint.every=1",
                                        "checkpoint.keep_last=9", "train.steps=6"};
  start(dir / "whole", set);
  start(dir / "run", set);
  test::resume(dir / "run", 3);
  test::expect_same_end(dir / "run", dir / "whole", 6);
}

TEST(Initial, RefusalsSayWhatToDo) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "first", {});
  const auto refusal = [&]<class E>(std::vector<std::string> set, const E*) {
    return thrown<E>([&] { start(dir / "second", set); });
  };
  const ConfigError* config = nullptr;
  const DataError* data = nullptr;
  STOA_EXPECT_CONTAINS(refusal({weights_are(dir / "nowhere")}, config), "does not exist; name a run folder");
  STOA_EXPECT_CONTAINS(refusal({weights_are(dir / "frist")}, config),
                       "does not exist; did you mean `" + (dir / "first").string());
  STOA_EXPECT_CONTAINS(refusal({weights_are(dir / "first"), "initial.fresh=['uot']"}, config), "`out`");
  STOA_EXPECT_CONTAINS(refusal({weights_are(dir / "first"), "model.hidden=6"}, data), "`initial.fresh`");
  STOA_EXPECT_CONTAINS(refusal({"initial.fresh=['out']"}, config),
                       "--set initial.fresh=['out']: `initial.fresh` is set, but `initial.weights` is not");
}

}  // namespace
}  // namespace stoa
