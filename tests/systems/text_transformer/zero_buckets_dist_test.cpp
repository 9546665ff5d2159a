// Language models large enough that ZeRO sums their gradients in several buckets, some of them while others
// are still to come.
#include <gtest/gtest.h>

#include "support/temp_dir.h"
#include "systems/text_transformer/split_runs.h"

namespace stoa {
namespace {

using Case = test::SplitCase;
using test::TempDir;

STOA_PROCESS_BODY(train) {
  test::train_as_told();
}

/// 3.3 million weights: four buckets of gradients, and as many batches of weights.
constexpr auto kLarge = "model.dim=256 model.depth=4 model.heads=4 model.mlp_dim=1024 optimizer.lr=1e-4 ";

class ZeroInBuckets : public testing::TestWithParam<Case> {};

TEST_P(ZeroInBuckets, TrainsAsOneProcessDoes) {
  const TempDir folder;
  auto shared = GetParam();
  shared.common = kLarge + shared.common;
  shared.split += " parallel.timeout=30";
  test::train_both(shared, folder.path());
  if (HasFailure()) return;
  test::expect_equal_runs(folder / "one", folder / "many");
}

// a sequence a step: now and then a part has no target; the order of sentences is told by one part alone
INSTANTIATE_TEST_SUITE_P(Models, ZeroInBuckets,
                         testing::Values(Case{"masked, ring of 2, zero 2", "masked_text", 2,
                                              "parallel.sequence=2 parallel.zero=2", "train.batch_size=1"},
                                         Case{"masked, ring of 2, zero 3", "masked_text", 2,
                                              "parallel.sequence=2 parallel.zero=3", "train.batch_size=1"},
                                         Case{"causal, 2 replicas, zero 3", "causal_text", 2,
                                              "parallel.zero=3", "train.batch_size=2"}));

}  // namespace
}  // namespace stoa
