// Language models whose layers are split over processes train as one process does.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "stoa/base/errors.h"
#include "stoa/base/json.h"
#include "stoa/dist/split_layers.h"
#include "stoa/dist/world.h"
#include "stoa/systems/catalog.h"
#include "stoa/systems/text_transformer/model.h"
#include "stoa/train/trainer.h"
#include "stoa/train/training_step.h"
#include "support/temp_dir.h"
#include "support/thrown.h"
#include "systems/text_transformer/split_runs.h"

namespace stoa {
namespace {

using test::TempDir;
using test::write_text;

STOA_PROCESS_BODY(diverge) {
  const auto error = test::thrown<NumericError>([] {
    test::train_text(std::getenv("STOA_TEST_RECIPE"), std::getenv("STOA_TEST_RUN"),
                     {"parallel.pipeline=2", "optimizer.name=sgd", "optimizer.lr=1e30"});
  });
  STOA_EXPECT_CONTAINS(error, "step 2: the loss is nan");
}

TEST(PipelineText, EndsEveryStageAtTheStepWhoseLossIsNotFinite) {
  const TempDir folder;
  write_text(folder.path());
  test::expect_processes("diverge", 2,
                         {.environment = {{"STOA_TEST_RECIPE", folder / "causal_text.toml"},
                                          {"STOA_TEST_RUN", folder / "run"}}});
}

void expect_equal_gradients(dist::World& world, const std::string& name, const std::vector<std::string>& set,
                            PipelineSchedule schedule = PipelineSchedule::kOneForwardOneBackward) {
  const TempDir folder;
  write_text(folder.path());
  const auto recipe = folder / (name + ".toml");
  const auto one = test::task_in_double(recipe, set), many = test::task_in_double(recipe, set);
  const dist::SplitLayers layers(many->model(), world.all_shared());
  const auto batch = one->train_batches({.batch_size = 7, .seed = 3})->next();
  const auto wanted = accumulate_gradients(*one, batch, {}, 2, {}, true, {.seed = 11});
  const auto found = accumulate_gradients(*many, batch, {}, 2, {}, true,
                                          {.seed = 11, .layers = &layers, .schedule = schedule});
  ASSERT_EQ(found.losses.size(), wanted.losses.size());
  for (std::size_t i = 0; i < wanted.losses.size(); ++i)
    EXPECT_NEAR(found.losses[i].second, wanted.losses[i].second, 1e-12) << wanted.losses[i].first;
  EXPECT_EQ(found.metrics, wanted.metrics);
  for (const auto& [statistic, value] : wanted.statistics.items())
    if (statistic.starts_with("router.")) {
      EXPECT_EQ(found.statistics[statistic], value) << statistic;
    }
  std::map<std::string, at::Tensor> gradients;
  for (const auto& parameter : nn::distinct_parameters(one->model()))
    gradients.emplace(parameter.name, parameter.tensor.grad());
  const auto own = layers.own(gradients);
  std::int64_t held = 0;
  for (const auto& parameter : nn::distinct_parameters(many->model())) {
    const auto& expected = own.at(parameter.name);
    EXPECT_EQ(parameter.tensor.sizes(), expected.sizes()) << parameter.name;
    held += expected.numel();
    if (expected.numel() == 0) continue;
    EXPECT_LT((parameter.tensor.grad() - expected).abs().max().item<double>(), 1e-12) << parameter.name;
  }
  EXPECT_LT(held, nn::count_parameters(one->model()));
}

STOA_PROCESS_TEST(PipelineGradients, AreThoseOfOneProcess, 3) {
  const auto world = dist::World::join(dist::read_place());
  expect_equal_gradients(*world, "masked_text", {"model.depth=4"});
  expect_equal_gradients(*world, "masked_text", {"model.depth=4"}, PipelineSchedule::kGPipe);
  expect_equal_gradients(*world, "causal_text", {"model.depth=3", "model.norm=pre", "model.recompute=true"});
  expect_equal_gradients(*world, "masked_text",
                         {"model.preset=albert", "model.depth=5", "model.embedding_dim=12"});
  expect_equal_gradients(*world, "causal_text",
                         {"model.depth=3", "model.share_attention=true", "model.share_mlp=true"});
}

/// Every router of every stage counts in the losses.
STOA_PROCESS_TEST(PipelineGradients, OfMixturesAreThoseOfOneProcess, 3) {
  const auto world = dist::World::join(dist::read_place());
  const std::vector<std::string> mixtures = {"model.router.experts=4", "model.router.capacity_factor=1",
                                             "model.router.balance_weight=0.2",
                                             "model.router.balance_reduce=mean", "model.router.z_weight=0.1"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), mixtures.begin(), mixtures.end());
    return more;
  };
  expect_equal_gradients(*world, "masked_text",
                         with({"model.depth=4", "model.mixture_layers=-1", "model.share_mlp=true",
                               "model.router.importance_weight=0.2", "model.router.load_weight=0.3"}));
  expect_equal_gradients(*world, "causal_text",
                         with({"model.depth=5", "model.mixture_layers=3", "model.norm=pre",
                               "model.recompute=true", "model.router.balance_scope=depth"}),
                         PipelineSchedule::kGPipe);
}

TEST(PipelineText, SaysWhatItCannotSplit) {
  const auto refused = [](const std::function<void(text_transformer::TextTransformerOptions&)>& change,
                          TextHead head) {
    text_transformer::TextTransformerOptions options;
    options.dim = 24, options.depth = 2, options.heads = 4, options.mlp_dim = 48;
    change(options);
    TextModelInput input;
    input.vocabulary = 50, input.length = 12, input.head = head;
    text_transformer::TextTransformer model(options, input);
    return test::thrown<ConfigError>([&] { model->require_stages(2); });
  };
  STOA_EXPECT_CONTAINS(refused([](auto&) {}, TextHead::kClasses), "masked_text and causal_text");
}

TEST(PipelineText, NeedsSeveralProcesses) {
  const TempDir folder;
  write_text(folder.path());
  const auto train = [&] {
    test::train_text(folder / "causal_text.toml", folder / "run", {"parallel.pipeline=2"});
  };
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>(train), "stoa launch -n 2");
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>(train), "parallel.pipeline");
}

}  // namespace
}  // namespace stoa
