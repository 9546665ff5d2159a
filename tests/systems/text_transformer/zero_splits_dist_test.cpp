// Runs of 20 steps in double where sequences are split, and where optimiser, gradients or weights are shared
// out (ZeRO) by parts of sequences or by replicas whose layers, experts or matrices are split too: equal to
// one process in every number of the log and of the checkpoint.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "stoa/systems/catalog.h"
#include "stoa/train/events.h"
#include "support/temp_dir.h"
#include "systems/text_transformer/split_runs.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using Case = test::SplitCase;
using test::TempDir;
using test::words_of;
using test::write_text;

STOA_PROCESS_BODY(train_in_double) {
  test::train_in_double(std::getenv("STOA_TEST_RECIPE"), std::getenv("STOA_TEST_RUN"),
                        words_of(std::getenv("STOA_TEST_SET")));
}

Checkpoint end_of(const fs::path& run) {
  return CheckpointStore(run / "checkpoints").load(20);
}

void expect_same_log(const fs::path& found, const fs::path& wanted) {
  const auto many = read_events(found), one = read_events(wanted);
  ASSERT_EQ(many.size(), one.size());
  for (std::size_t i = 0; i < one.size(); ++i)
    for (const auto& [name, value] : one[i].items()) {
      if (!value.is_number() || name == "seconds" || name == "samples_per_second") continue;
      const auto number = value.get<double>();
      const double bound = name.ends_with("accuracy") ? 1e-7 : 1e-12;  // which the task counts in fp32
      EXPECT_NEAR(many[i].at(name).get<double>(), number, bound * (1 + std::abs(number)))
          << "line " << i << ", " << name;
    }
}

class ZeroWithSplits : public testing::TestWithParam<Case> {};

TEST_P(ZeroWithSplits, TrainsAsOneProcessDoes) {
  const TempDir folder;
  write_text(folder.path());
  auto both = GetParam();
  // the gradient of a key's bias is rounding alone, which a smaller eps would scale up
  both.common += " optimizer.eps=1e-5 train.ema=0.9";
  test::train_in_double(folder / (both.task + ".toml"), folder / "one", words_of(both.common));
  test::train_many(both, folder.path(), "train_in_double");
  if (HasFailure()) return;
  expect_same_log(folder / "many", folder / "one");
  const auto one = end_of(folder / "one"), many = end_of(folder / "many");
  EXPECT_LT(test::furthest(many.model, one.model, 1e-3), 1e-12);
  EXPECT_LT(test::furthest(many.optimizer, one.optimizer, 1e-3), 1e-12);
  EXPECT_LT(test::furthest(many.average, one.average, 1e-3), 1e-12);
  EXPECT_TRUE(fs::exists(folder / "many" / "evaluation.json"));  // rank 0 had the whole model to measure it
}

const std::string kMixtures =
    " model.mixture_layers=-1 model.router.experts=4 model.router.capacity_factor=1 "
    "model.router.balance_weight=0.2 model.router.z_weight=0.1";

INSTANTIATE_TEST_SUITE_P(
    Splits, ZeroWithSplits,
    testing::Values(
        Case{"SequencesInAZigzagRing", "causal_text", 2, "parallel.sequence=2 parallel.order=zigzag",
             "train.clip_norm=0.3 model.norm=pre"},
        Case{"SequencesByRsaGradients", "masked_text", 3,
             "parallel.sequence=3 parallel.attention=rsa parallel.zero=2",
             "optimizer.name=lamb train.clip_norm=0.3"},
        Case{"SequencesByAStripedHybridWeights", "causal_text", 4,
             "parallel.sequence=4 parallel.order=striped parallel.attention=hybrid parallel.ulysses=2 "
             "parallel.zero=3",
             "model.recompute=true train.clip_norm=0.3 train.clip=tensor"},
        Case{"StagesWithOneLayerForBothGradients", "masked_text", 4, "parallel.pipeline=2 parallel.zero=2",
             "train.micro_batch_size=2 model.preset=albert model.depth=3 model.embedding_dim=12 "
             "train.clip_norm=0.3 train.clip=tensor"},
        Case{"StagesRecomputedWeights", "masked_text", 4,
             "parallel.pipeline=2 parallel.zero=3 model.recompute=true",
             "train.micro_batch_size=1 model.depth=4 optimizer.name=lamb optimizer.dialect=nvlamb"},
        Case{"StagesAndMatricesStates", "masked_text", 8,
             "parallel.pipeline=2 parallel.tensor=2 parallel.zero=1",
             "train.micro_batch_size=2 optimizer.name=lamb train.clip_norm=0.3"},
        Case{"StagesAndExpertsOfTwoGradients", "masked_text", 4,
             "parallel.pipeline=2 parallel.expert=2 parallel.zero=2",
             "train.micro_batch_size=0 optimizer.name=lamb optimizer.dialect=nvlamb" + kMixtures},
        Case{"StagesAndExpertsOfTwoBlocksWeights", "causal_text", 8,
             "parallel.pipeline=2 parallel.expert=2 parallel.zero=3",
             "train.batch_size=8 train.micro_batch_size=0 train.clip_norm=0.3 model.norm=pre" + kMixtures}),
    [](const auto& info) { return info.param.name; });

STOA_PROCESS_BODY(train) {
  test::train_as_told();
}

STOA_PROCESS_BODY(resume) {
  run_training({.recipe = {}, .out = {}, .resume = std::getenv("STOA_TEST_RUN"), .resume_step = 10},
               catalog());
}

/// What four processes write goes on in one, and in three, which share out weights but neither layers nor
/// experts.
TEST(ZeroWithSplitsRuns, GoOnWithOtherNumbersOfProcesses) {
  const TempDir folder;
  write_text(folder.path());
  const auto many = folder / "many", alone = folder / "alone";
  test::train_many({"", "masked_text", 4, "parallel.pipeline=2 parallel.expert=2 parallel.zero=3",
                    "train.micro_batch_size=0 checkpoint.every=10 train.ema=0.9" + kMixtures},
                   folder.path());
  if (HasFailure()) return;
  const auto end = read_events(many).back().at("loss").get<double>();
  CheckpointStore(many / "checkpoints").remove_after(10);  // the end is to be reached again
  fs::copy(many, alone, fs::copy_options::recursive);
  run_training({.recipe = {}, .out = {}, .resume = alone, .resume_step = 10}, catalog());
  test::expect_processes("resume", 3, {.environment = {{"STOA_TEST_RUN", many}}});
  for (const auto& run : {many, alone}) {
    EXPECT_NEAR(read_events(run).back().at("loss").get<double>(), end, 1e-6 * end);
    EXPECT_TRUE(fs::exists(run / "checkpoints/step-20"));
  }
}

}  // namespace
}  // namespace stoa
