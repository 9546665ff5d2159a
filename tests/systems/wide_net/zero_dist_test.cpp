// WideNet and ViT-MoE whose optimiser, gradients or weights are shared out (ZeRO), with experts dealt out and
// without, against one process, in double.
#include <gtest/gtest.h>

#include "systems/wide_net/random_images.h"

namespace stoa::wide_net {
namespace {

STOA_PROCESS_BODY(train) {
  train_as_told();
}

STOA_PROCESS_BODY(go_on) {
  go_on_as_told();
}

class ZeroWideNet : public testing::TestWithParam<Case> {};

TEST_P(ZeroWideNet, TrainsAsOneProcessDoes) {
  expect_trains_as_one(GetParam());
}

/// The gradient of a key's bias is rounding alone, which a smaller one would scale up.
const std::string kLargeEps = "optimizer.eps=1e-4 ";
const std::string kOwnMixtures = kLargeEps + "model.share_mlp=false model.mixture_layers=2 ";

INSTANTIATE_TEST_SUITE_P(
    Stages, ZeroWideNet,
    testing::Values(Case{"WeightsOfReplicas", 3, "parallel.zero=3", kEps},
                    Case{"WeightsOfReplicasWithMixturesOfTheirOwn", 2, "parallel.zero=3 model.recompute=true",
                         kOwnMixtures + "optimizer.name=lamb train.clip=tensor train.clip_norm=0.05"},
                    Case{"StatesAndExpertsOfTwoBlocks", 4, "parallel.expert=2 parallel.zero=1",
                         kOwnMixtures + "optimizer.name=lamb optimizer.dialect=nvlamb"},
                    Case{"GradientsAndExpertsOfOneBlockUneven", 2, "parallel.expert=2 parallel.zero=2",
                         kEps + "train.batch_size=7"},
                    Case{"WeightsAndExpertsOfTwoBlocks", 4, "parallel.expert=2 parallel.zero=3",
                         kOwnMixtures + "optimizer.name=lamb optimizer.dialect=nvlamb train.clip=tensor "
                                        "train.clip_norm=0.05"},
                    Case{"WeightsAndExpertsOfTwoWithMatricesOfTwo", 4,
                         "parallel.expert=2 parallel.tensor=2 parallel.zero=3", kOwnMixtures}),
    [](const auto& info) { return info.param.name; });

TEST(ZeroWideNetRuns, GoOnWithAnotherNumberOfProcesses) {
  expect_goes_on(4, "parallel.expert=2 parallel.zero=3", 3);  // of which none shares out experts
}

}  // namespace
}  // namespace stoa::wide_net
