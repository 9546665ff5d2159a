// Language models with mixtures, whose packed sequences give every process another number of tokens.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "stoa/systems/catalog.h"
#include "stoa/train/events.h"
#include "stoa/train/trainer.h"
#include "support/processes.h"
#include "support/temp_dir.h"
#include "support/text_runs.h"

namespace stoa {
namespace {

STOA_PROCESS_BODY(train) {
  test::train_text(std::getenv("STOA_TEST_RECIPE"), std::getenv("STOA_TEST_RUN"),
                   test::words_of(std::getenv("STOA_TEST_SET")));
}

struct Case {
  std::string name, task;
  int world;
  std::string split;        ///< what the processes' recipe says besides
  std::string common = "";  ///< and that of one process too
};

void PrintTo(const Case& c, std::ostream* to) {
  *to << c.name;
}

class ExpertParallelText : public testing::TestWithParam<Case> {};

TEST_P(ExpertParallelText, TrainsAsOneProcessDoes) {
  const std::string common =
      "train.batch_size=5 train.micro_batch_size=0 model.mixture_layers=-1 model.router.experts=4 "
      "model.router.capacity_factor=1 model.router.balance_weight=0.2 model.router.z_weight=0.1 " +
      GetParam().common;
  const test::TempDir folder;
  test::write_text(folder.path());
  const auto recipe = folder / (GetParam().task + ".toml");
  test::train_text(recipe, folder / "one", test::words_of(common));
  test::expect_processes("train", GetParam().world,
                         {.environment = {{"STOA_TEST_RECIPE", recipe},
                                          {"STOA_TEST_RUN", folder / "many"},
                                          {"STOA_TEST_SET", common + " " + GetParam().split}}});
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
  test::expect_processes(
      "train", 4,
      {.environment = {
           {"STOA_TEST_RECIPE", folder / "causal_text.toml"},
           {"STOA_TEST_RUN", many},
           {"STOA_TEST_SET",
            "parallel.pipeline=2 parallel.expert=2 train.micro_batch_size=2 train.batch_size=8 "
            "model.mixture_layers=-1 model.router.experts=4 checkpoint.every=10 train.ema=0.9"}}});
  if (HasFailure()) return;
  const auto end = read_events(many).back().at("loss").get<double>();
  std::filesystem::copy(many, alone, std::filesystem::copy_options::recursive);
  run_training({.recipe = {}, .out = {}, .resume = alone, .resume_step = 10}, catalog());
  EXPECT_NEAR(read_events(alone).back().at("loss").get<double>(), end, 2e-5 * end);
}

}  // namespace
}  // namespace stoa
