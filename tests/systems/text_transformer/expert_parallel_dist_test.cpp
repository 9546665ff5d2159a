// Language models with mixtures, whose packed sequences give every process another number of tokens.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

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
  std::string split;
};

void PrintTo(const Case& c, std::ostream* to) {
  *to << c.name;
}

class ExpertParallelText : public testing::TestWithParam<Case> {};

TEST_P(ExpertParallelText, TrainsAsOneProcessDoes) {
  const std::string common =
      "train.batch_size=5 train.micro_batch_size=0 model.mixture_layers=-1 model.router.experts=4 "
      "model.router.capacity_factor=1 model.router.balance_weight=0.2 model.router.z_weight=0.1";
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

INSTANTIATE_TEST_SUITE_P(Splits, ExpertParallelText,
                         testing::Values(Case{"MaskedExpertsOfTwo", "masked_text", 2, "parallel.expert=2"},
                                         Case{"CausalWeightsOfTwoAndTwoReplicas", "causal_text", 4,
                                              "parallel.tensor=2"}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace stoa
