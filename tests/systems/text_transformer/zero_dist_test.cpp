// Transformers whose weights are shared out over processes (ZeRO 3) train as one process does.
#include <gtest/gtest.h>

#include <cstdlib>

#include "stoa/train/checkpoint.h"
#include "support/processes.h"
#include "support/temp_dir.h"
#include "support/text_runs.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using test::TempDir;
using test::words_of;
using test::write_text;

STOA_PROCESS_BODY(train) {
  test::train_text(std::getenv("STOA_TEST_RECIPE"), std::getenv("STOA_TEST_RUN"),
                   words_of(std::getenv("STOA_TEST_SET")));
}

struct Case {
  std::string name, task;
  int world;
  std::string common, split = "";  ///< of both recipes, and of that of several processes besides
};

void PrintTo(const Case& c, std::ostream* to) {
  *to << c.name;
}

/// Weights, moments and averages; Adam divides by gradients' sizes, so that rounding grows with the steps.
void expect_close(const std::map<std::string, at::Tensor>& found,
                  const std::map<std::string, at::Tensor>& wanted) {
  ASSERT_EQ(found.size(), wanted.size());
  for (const auto& [name, tensor] : wanted) {
    const auto other = found.at(name).to(at::kDouble), one = tensor.to(at::kDouble);
    EXPECT_LE((other - one).norm().item<double>(), 1e-4 * one.norm().item<double>() + 1e-7) << name;
  }
}

class SharedWeightsText : public testing::TestWithParam<Case> {};

TEST_P(SharedWeightsText, TrainsAsOneProcessDoes) {
  const TempDir folder;
  write_text(folder.path());
  const auto& [name, task, world, common, split] = GetParam();
  const fs::path recipe = folder / (task + ".toml");
  test::train_text(recipe, folder / "one", words_of(common));
  test::expect_processes("train", world,
                         {.environment = {{"STOA_TEST_RECIPE", recipe},
                                          {"STOA_TEST_RUN", folder / "many"},
                                          {"STOA_TEST_SET", common + " parallel.zero=3 " + split}}});
  if (HasFailure()) return;
  test::expect_equal_runs(folder / "one", folder / "many");
  const auto one = CheckpointStore(folder / "one" / "checkpoints").load(20),
             many = CheckpointStore(folder / "many" / "checkpoints").load(20);
  expect_close(many.model, one.model);
  expect_close(many.optimizer, one.optimizer);
  expect_close(many.average, one.average);
}

INSTANTIATE_TEST_SUITE_P(
    Models, SharedWeightsText,
    testing::Values(Case{"causal, pre-norm, 3 layers, LAMB, clipped, averaged", "causal_text", 3,
                         "model.norm=pre model.depth=3 optimizer.name=lamb train.clip_norm=0.3 train.ema=0.9 "
                         "train.micro_batch_size=1"},
                    Case{"masked, recomputed", "masked_text", 2, "train.clip_norm=0.3 train.clip=tensor",
                         "model.recompute=true"},
                    Case{"masked, one layer for all", "masked_text", 2,
                         "model.preset=albert model.depth=3 model.embedding_dim=12 train.micro_batch_size=2"},
                    Case{"masked, weights of 2, 2 replicas", "masked_text", 4,
                         "optimizer.name=lamb train.clip_norm=0.3", "parallel.tensor=2"},
                    Case{"causal, ring of 2", "causal_text", 2, "train.clip_norm=0.3",
                         "parallel.sequence=2"}));

}  // namespace
}  // namespace stoa
