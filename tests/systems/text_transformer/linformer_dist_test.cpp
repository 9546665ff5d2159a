// Language models that attend through Linformer's projections, their sequences, weights or layers split over
// processes, train as one process does.
#include <gtest/gtest.h>

#include <cstdlib>

#include "stoa/dist/gradient_buckets.h"
#include "stoa/dist/world.h"
#include "stoa/nn/parameters.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/events.h"
#include "stoa/train/training_step.h"
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

class ParallelLinformer : public testing::TestWithParam<Case> {};

/// 20 steps in fp32, all dropout on: every number of the log to 1e-6.
TEST_P(ParallelLinformer, TrainsAsOneProcessDoes) {
  const TempDir folder;
  test::train_both(GetParam(), folder.path());
  if (!HasFailure()) test::expect_equal_runs(folder / "one", folder / "many");
}

INSTANTIATE_TEST_SUITE_P(
    Splits, ParallelLinformer,
    testing::Values(Case{"TokensOfTwo", "masked_text", 2, "parallel.sequence=2", "model.linformer=8"},
                    Case{"StripedTokensOfThreeRecomputed", "masked_text", 3,
                         "parallel.sequence=3 parallel.order=striped model.recompute=true",
                         "model.linformer=5 model.linformer_sharing=keys_values"},
                    Case{"TokensAndHeadsOfTwo", "masked_text", 4, "parallel.sequence=2 parallel.tensor=2",
                         "model.linformer=8 optimizer.name=lamb train.clip_norm=0.3"},
                    Case{"StagesOfTwoWithOneProjectionForAll", "masked_text", 2, "parallel.pipeline=2",
                         "model.linformer=8 model.linformer_sharing=layers train.micro_batch_size=2 "
                         "train.clip_norm=0.3"},
                    Case{"TokensOfTwoWeightsSharedOut", "masked_text", 2,
                         "parallel.sequence=2 parallel.zero=3", "model.linformer=8 train.clip_norm=0.3"}),
    [](const auto& info) { return info.param.name; });

/// The gradient of every parameter in double, of a batch in two micro-batches with padding and dropout.
void expect_equal_gradients(dist::World& world, dist::TokenOrder order, std::vector<std::string> set) {
  set.insert(set.end(), {"model.linformer=6", "model.init_std=0.3"});  // scores far from 0
  const TempDir folder;
  write_text(folder.path());
  const auto recipe = folder / "masked_text.toml";
  const auto one = test::task_in_double(recipe, set), many = test::task_in_double(recipe, set);
  dist::SequenceSplit split;
  split.group = world.all_shared();
  split.order = order;
  many->split_sequences(split);
  const auto batch = one->train_batches({.batch_size = 7, .seed = 3})->next();
  const auto wanted = accumulate_gradients(*one, batch, {}, 4, {}, true, {.seed = 11});
  dist::GradientBuckets buckets(nn::distinct_parameters(many->model()), world.all());
  const auto found = accumulate_gradients(
      *many, batch, {}, 4, {}, true,
      {.seed = 11, .partners = &world.all(), .buckets = &buckets, .meets_in_passes = true});
  ASSERT_EQ(found.losses.size(), wanted.losses.size());
  for (std::size_t i = 0; i < wanted.losses.size(); ++i)
    EXPECT_NEAR(found.losses[i].second, wanted.losses[i].second, 1e-12) << wanted.losses[i].first;
  const auto own = many->model().named_parameters();
  for (const auto& parameter : nn::distinct_parameters(one->model())) {
    const auto& expected = parameter.tensor.grad();
    EXPECT_LT((own[parameter.name].grad() - expected).abs().max().item<double>(), 1e-12) << parameter.name;
    if (parameter.name.starts_with("projections.")) {
      EXPECT_GT(expected.abs().max().item<double>(), 1e-4) << parameter.name;
    }
  }
}

STOA_PROCESS_TEST(LinformerGradients, AreThoseOfOneProcess, 2, 3) {
  const auto world = dist::World::join(dist::read_place());
  expect_equal_gradients(*world, dist::TokenOrder::kContiguous, {});
  expect_equal_gradients(*world, dist::TokenOrder::kZigzag,
                         {"model.norm=pre", "model.linformer_sharing=keys_values"});
  expect_equal_gradients(*world, dist::TokenOrder::kStriped,
                         {"model.preset=albert", "model.depth=3", "model.embedding_dim=12",
                          "model.attention_dropout=0.3", "model.recompute=true"});
}

STOA_PROCESS_BODY(resume) {
  run_training({.recipe = {}, .out = {}, .resume = std::getenv("STOA_TEST_RUN"), .resume_step = 10},
               catalog());
}

/// What two processes write goes on in one, and in two to the bit.
TEST(LinformerCheckpoints, GoOnInOneProcessAndInTwo) {
  const TempDir folder;
  write_text(folder.path());
  test::train_many({"", "masked_text", 2, "parallel.sequence=2 parallel.zero=2",
                    "model.linformer=8 checkpoint.every=10 train.ema=0.9"},
                   folder.path());
  if (HasFailure()) return;
  const auto many = folder / "many", alone = folder / "alone";
  const auto end = read_events(many).back().at("loss").get<double>();
  fs::copy(many, alone, fs::copy_options::recursive);
  run_training({.recipe = {}, .out = {}, .resume = alone, .resume_step = 10}, catalog());
  test::expect_processes("resume", 2, {.environment = {{"STOA_TEST_RUN", many}}});
  EXPECT_EQ(read_events(many).back().at("loss").get<double>(), end);
  EXPECT_NEAR(read_events(alone).back().at("loss").get<double>(), end, 1e-6 * end);
}

}  // namespace
}  // namespace stoa
