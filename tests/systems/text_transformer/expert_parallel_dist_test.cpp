// Language models with mixtures, whose packed sequences give every process another number of tokens.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "stoa/systems/catalog.h"
#include "stoa/train/events.h"
#include "stoa/train/trainer.h"
#include "support/temp_dir.h"
#include "systems/text_transformer/split_runs.h"

namespace stoa {
namespace {

using Case = test::SplitCase;

STOA_PROCESS_BODY(train) {
  test::train_as_told();
}

class ExpertParallelText : public testing::TestWithParam<Case> {};

TEST_P(ExpertParallelText, TrainsAsOneProcessDoes) {
  auto mixtures = GetParam();
  mixtures.common =
      "train.batch_size=5 train.micro_batch_size=0 model.mixture_layers=-1 model.router.experts=4 "
      "model.router.capacity_factor=1 model.router.balance_weight=0.2 model.router.z_weight=0.1 " +
      mixtures.common;
  const test::TempDir folder;
  test::train_both(mixtures, folder.path());
  if (!HasFailure()) test::expect_equal_runs(folder / "one", folder / "many");
}

INSTANTIATE_TEST_SUITE_P(
    Splits, ExpertParallelText,
    testing::Values(Case{"MaskedExpertsOfTwo", "masked_text", 2, "parallel.expert=2"},
                    Case{"CausalWeightsOfTwoAndTwoReplicas", "causal_text", 4, "parallel.tensor=2"},
                    Case{"CausalStagesOfTwoInMicroBatches", "causal_text", 2, "parallel.pipeline=2",
                         "train.micro_batch_size=2 train.clip_norm=0.3"},
                    Case{"CausalStagesWeightsAndExpertsOfTwo", "causal_text", 8,
                         "parallel.pipeline=2 parallel.tensor=2 parallel.expert=2",
                         "optimizer.name=lamb train.clip_norm=0.3"},
                    Case{"MaskedStagesOfTwoAndExpertsOfTwo", "masked_text", 4,
                         "parallel.pipeline=2 parallel.expert=2",
                         "optimizer.name=lamb train.clip_norm=0.3 train.ema=0.9 "
                         "model.share_mlp=true"}),
    [](const auto& info) { return info.param.name; });

TEST(StagesWithDealtExperts, GoOnInOneProcess) {
  const test::TempDir folder;
  test::write_text(folder.path());
  const auto many = folder / "many", alone = folder / "alone";
  test::train_many({"", "causal_text", 4, "parallel.pipeline=2 parallel.expert=2",
                    "train.micro_batch_size=2 train.batch_size=8 model.mixture_layers=-1 "
                    "model.router.experts=4 checkpoint.every=10 train.ema=0.9"},
                   folder.path());
  if (HasFailure()) return;
  const auto end = read_events(many).back().at("loss").get<double>();
  CheckpointStore(many / "checkpoints").remove_after(10);  // the end is to be reached again
  std::filesystem::copy(many, alone, std::filesystem::copy_options::recursive);
  run_training({.recipe = {}, .out = {}, .resume = alone, .resume_step = 10}, catalog());
  EXPECT_NEAR(read_events(alone).back().at("loss").get<double>(), end, 1e-6 * end);
  EXPECT_TRUE(std::filesystem::exists(alone / "checkpoints/step-20"));
}

}  // namespace
}  // namespace stoa
