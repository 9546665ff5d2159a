// Language models whose sequences, weights or layers are split over processes train as one process does.
#include <gtest/gtest.h>

#include <cstdlib>

#include "stoa/base/errors.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/events.h"
#include "stoa/train/trainer.h"
#include "support/temp_dir.h"
#include "support/thrown.h"
#include "systems/text_transformer/split_runs.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using Case = test::SplitCase;
using test::TempDir;
using test::write_text;

STOA_PROCESS_BODY(train) {
  test::train_as_told();
}

class ParallelText : public testing::TestWithParam<Case> {};

TEST_P(ParallelText, TrainsAsOneProcessDoes) {
  const TempDir folder;
  test::train_both(GetParam(), folder.path());
  if (!HasFailure()) test::expect_equal_runs(folder / "one", folder / "many");
}

INSTANTIATE_TEST_SUITE_P(
    Splits, ParallelText,
    testing::Values(
        Case{"masked, ring of 2", "masked_text", 2, "parallel.sequence=2"},
        Case{"masked, RSA of 3", "masked_text", 3, "parallel.sequence=3 parallel.attention=rsa"},
        Case{"masked, 2 replicas of 2", "masked_text", 4, "parallel.sequence=2 parallel.attention=ulysses"},
        Case{"causal, zigzag ring of 4", "causal_text", 4, "parallel.sequence=4 parallel.order=zigzag"},
        Case{"causal, striped hybrid of 4", "causal_text", 4,
             "parallel.sequence=4 parallel.order=striped parallel.attention=hybrid parallel.ulysses=2"},
        Case{"causal, gathered keys, recomputed", "causal_text", 2,
             "parallel.sequence=2 parallel.attention=gather_kv model.recompute=true"},
        Case{"masked, chunks without a target", "masked_text", 4, "parallel.sequence=4",
             "train.batch_size=1 train.micro_batch_size=0"},
        Case{"masked, weights of 2, clipped LAMB", "masked_text", 2, "parallel.tensor=2",
             "optimizer.name=lamb train.clip_norm=0.3 train.ema=0.9"},
        Case{"causal, weights of 2, 2 replicas, recomputed", "causal_text", 4,
             "parallel.tensor=2 model.recompute=true", "train.clip_norm=0.3 train.clip=tensor"},
        Case{"causal, ring of 2, optimiser shared out", "causal_text", 2,
             "parallel.sequence=2 parallel.zero=1", "train.clip_norm=0.3"},
        Case{"masked, weights of 2, 2 replicas that share out the optimiser", "masked_text", 4,
             "parallel.tensor=2 parallel.zero=2", "optimizer.name=lamb train.clip_norm=0.3"},
        Case{"masked, weights of 2, sequences of 2", "masked_text", 4,
             "parallel.tensor=2 parallel.sequence=2"},
        Case{"masked, 2 stages, clipped LAMB", "masked_text", 2, "parallel.pipeline=2",
             "train.micro_batch_size=2 optimizer.name=lamb train.clip_norm=0.3 train.ema=0.9"},
        Case{"causal, pre-norm, 3 stages of 5 layers, recomputed", "causal_text", 3,
             "parallel.pipeline=3 model.recompute=true",
             "model.norm=pre model.depth=5 train.clip_norm=0.3 train.clip=tensor train.micro_batch_size=1"},
        Case{"masked, one layer for both stages, 2 replicas", "masked_text", 4, "parallel.pipeline=2",
             "train.micro_batch_size=2 model.preset=albert model.depth=3 model.embedding_dim=12"},
        Case{"causal, 2 stages, sequences of 2", "causal_text", 4, "parallel.pipeline=2 parallel.sequence=2",
             "train.micro_batch_size=2"},
        Case{"masked, 2 stages, weights of 2, clipped", "masked_text", 4,
             "parallel.pipeline=2 parallel.tensor=2", "train.micro_batch_size=2 train.clip_norm=0.3"}));

STOA_PROCESS_BODY(resume) {
  run_training({.recipe = {}, .out = {}, .resume = std::getenv("STOA_TEST_RUN"), .resume_step = 10},
               catalog());
}

class SplitCheckpoints : public testing::TestWithParam<const char*> {};

TEST_P(SplitCheckpoints, GoOnInOneProcessAndInTwo) {
  const TempDir folder;
  write_text(folder.path());
  test::train_many({"", "masked_text", 2, GetParam(), "checkpoint.every=10 train.ema=0.9"}, folder.path());
  const auto end = read_events(folder / "many").back();
  EXPECT_TRUE(fs::exists(folder / "many" / "evaluation.json"));  // rank 0 had the whole model to measure it
  const auto loaded = load_run(folder / "many", catalog(), "last", /*open_data=*/true);
  loaded.task->model().eval();
  EXPECT_NEAR(loaded.task->evaluate({.batch_size = 7, .progress = {}}).metrics["loss"],
              end.at("loss").get<double>(), 1e-6);
  CheckpointStore(folder / "many/checkpoints").remove_after(10);  // the end is to be reached again
  fs::copy(folder / "many", folder / "alone", fs::copy_options::recursive);
  run_training({.recipe = {}, .out = {}, .resume = folder / "alone", .resume_step = 10}, catalog());
  test::expect_processes("resume", 2, {.environment = {{"STOA_TEST_RUN", folder / "many"}}});
  EXPECT_EQ(read_events(folder / "many").back().at("loss"), end.at("loss"));  // to the bit
  EXPECT_NEAR(read_events(folder / "alone").back().at("loss").get<double>(), end.at("loss").get<double>(),
              1e-6 * end.at("loss").get<double>());
  for (const auto* run : {"many", "alone"}) EXPECT_TRUE(fs::exists(folder / run / "checkpoints/step-20"));
}

INSTANTIATE_TEST_SUITE_P(Splits, SplitCheckpoints,
                         testing::Values("parallel.tensor=2", "parallel.pipeline=2"));

TEST(SequenceSplit, NeedsSeveralProcesses) {
  const TempDir folder;
  write_text(folder.path());
  STOA_EXPECT_CONTAINS(
      test::thrown<ConfigError>(
          [&] { test::train_text(folder / "causal_text.toml", folder / "run", {"parallel.sequence=2"}); }),
      "stoa launch -n 2");
}

}  // namespace
}  // namespace stoa
