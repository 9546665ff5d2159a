// Transformers whose weights are shared out over processes (ZeRO 3) train as one process does.
#include <gtest/gtest.h>

#include "stoa/train/events.h"
#include "support/temp_dir.h"
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

/// Weights, moments and averages; Adam divides by gradients' sizes, so that rounding grows with the steps.
void expect_close(const std::map<std::string, at::Tensor>& found,
                  const std::map<std::string, at::Tensor>& wanted) {
  ASSERT_EQ(found.size(), wanted.size());
  for (const auto& [name, tensor] : wanted) {
    const auto other = found.at(name).to(at::kDouble), one = tensor.to(at::kDouble);
    EXPECT_LE((other - one).norm().item<double>(), 1e-4 * one.norm().item<double>() + 1e-7) << name;
  }
}

Checkpoint end_of(const fs::path& run) {
  return CheckpointStore(run / "checkpoints").load(20);
}

class SharedWeightsText : public testing::TestWithParam<Case> {};

TEST_P(SharedWeightsText, TrainsAsOneProcessDoes) {
  const TempDir folder;
  auto shared = GetParam();
  shared.split += " parallel.zero=3";
  test::train_both(shared, folder.path());
  if (HasFailure()) return;
  test::expect_equal_runs(folder / "one", folder / "many");
  const auto one = end_of(folder / "one"), many = end_of(folder / "many");
  expect_close(many.model, one.model);
  expect_close(many.optimizer, one.optimizer);
  expect_close(many.average, one.average);
}

INSTANTIATE_TEST_SUITE_P(
    Models, SharedWeightsText,
    testing::Values(Case{"causal, pre-norm, 3 layers, LAMB, clipped, averaged", "causal_text", 3, "",
                         "model.norm=pre model.depth=3 optimizer.name=lamb train.clip_norm=0.3 train.ema=0.9 "
                         "train.micro_batch_size=1"},
                    Case{"masked, recomputed", "masked_text", 2, "model.recompute=true",
                         "train.clip_norm=0.3 train.clip=tensor"},
                    Case{"masked, one layer for all", "masked_text", 2, "",
                         "model.preset=albert model.depth=3 model.embedding_dim=12 train.micro_batch_size=2"},
                    Case{"masked, weights of 2, 2 replicas", "masked_text", 4, "parallel.tensor=2",
                         "optimizer.name=lamb train.clip_norm=0.3"},
                    Case{"causal, ring of 2", "causal_text", 2, "parallel.sequence=2",
                         "train.clip_norm=0.3"}));

/// Nothing is computed in another way: of two processes, whose sums have one order, and without norms, runs
/// are those of replicas to the bit.
TEST(SharedWeightsInHalfPrecision, AreThoseOfReplicasToTheBit) {
  const TempDir replicas, shared;
  for (const auto* folder : {&replicas, &shared}) {
    write_text(folder->path());
    test::train_many({"", "causal_text", 2, folder == &shared ? "parallel.zero=3" : "parallel.zero=0",
                      "runtime.precision=bf16 train.micro_batch_size=1 train.ema=0.9"},
                     folder->path());
    if (HasFailure()) return;
  }
  const auto one = end_of(replicas / "many"), many = end_of(shared / "many");
  for (const auto& [wanted, found] : {std::pair{&one.model, &many.model},
                                      {&one.optimizer, &many.optimizer},
                                      {&one.average, &many.average}}) {
    ASSERT_EQ(found->size(), wanted->size());
    for (const auto& [name, tensor] : *wanted) EXPECT_TRUE(at::equal(found->at(name), tensor)) << name;
  }
  const auto log = read_events(shared / "many"), wanted = read_events(replicas / "many");
  ASSERT_EQ(log.size(), wanted.size());
  for (std::size_t i = 0; i < log.size(); ++i)
    EXPECT_EQ(log[i].value("loss", 0.0), wanted[i].value("loss", 0.0)) << "line " << i;
}

}  // namespace
}  // namespace stoa
