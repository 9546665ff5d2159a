// WideNet and ViT-MoE trained by processes that share out batches and experts, against one process, in
// double.
#include <gtest/gtest.h>

#include "support/thrown.h"
#include "systems/wide_net/random_images.h"

namespace stoa::wide_net {
namespace {

STOA_PROCESS_BODY(train) {
  train_as_told();
}

STOA_PROCESS_BODY(go_on) {
  go_on_as_told();
}

class ExpertParallelWideNet : public testing::TestWithParam<Case> {};

TEST_P(ExpertParallelWideNet, TrainsAsOneProcessDoes) {
  expect_trains_as_one(GetParam());
}

INSTANTIATE_TEST_SUITE_P(
    Wholes, ExpertParallelWideNet,
    testing::Values(
        Case{"TwoProcessesUneven", 2, "parallel.expert=2",
             kEps + "train.batch_size=7 model.router.importance_weight=0.2 model.router.load_weight=0.2"},
        Case{"TwoBlocksOfTwo", 4, "parallel.expert=2",
             kEps + "model.share_mlp=false model.mixture_layers=2 model.router.fill=priority "
                    "model.recompute=true "
                    "model.router.group_size=3 optimizer.name=lamb optimizer.dialect=nvlamb"},
        Case{"OneExpertEach", 4, "parallel.expert=4",
             "train.micro_batch_size=2 model.router.fill=token optimizer.name=sgd optimizer.weight_decay=0.1 "
             "train.clip=tensor "
             "train.clip_norm=0.05"},
        Case{"ExpertsOfTwoWithWeightsOfTwo", 4, "parallel.expert=2 parallel.tensor=2", kEps},
        Case{
            "ExpertsOfTwoWithWeightsOfTwoByTensor", 4, "parallel.expert=2 parallel.tensor=2",
            kEps +
                "model.share_mlp=false model.mixture_layers=2 optimizer.name=lamb optimizer.dialect=nvlamb "
                "train.clip=tensor train.clip_norm=0.05 model.ffn_output_activation=gelu optimizer.eps=1e-4"},
        Case{"DataAlone", 2, "", kEps + "model.router.routing=expert_choice model.router.balance_weight=0"}),
    [](const auto& info) { return info.param.name; });

TEST(ExpertParallelRuns, GoOnWithAnotherNumberOfProcesses) {
  expect_goes_on(2, "parallel.expert=2", 4);
}

TEST(ExpertParallelRuns, WithSplitWeightsGoOnWithAnotherNumberOfProcesses) {
  expect_goes_on(4, "parallel.expert=2 parallel.tensor=2", 2);
}

TEST(ExpertParallelRuns, SayWhatCannotBeSharedOut) {
  const TempDir folder;
  const std::string uneven = "parallel.expert=2 train.batch_size=5 train.micro_batch_size=2";
  for (const auto& end : test::run_processes(
           "train", 2, {.environment = {{"STOA_TEST_RUN", folder / "run"}, {"STOA_TEST_SET", uneven}}})) {
    EXPECT_NE(end.code, 0);
    STOA_EXPECT_CONTAINS(end.output, "2 processes have 2 or 3 samples");
  }
}

}  // namespace
}  // namespace stoa::wide_net
