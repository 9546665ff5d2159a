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
#include "stoa/train/events.h"
#include "stoa/train/team.h"
#include "stoa/train/trainer.h"
#include "stoa/train/training_step.h"
#include "support/processes.h"
#include "support/temp_dir.h"
#include "support/text_runs.h"
#include "support/thrown.h"

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
  std::string split;   ///< what the processes' recipe says besides
  std::string common;  ///< and that of one process too
};

void PrintTo(const Case& c, std::ostream* to) {
  *to << c.name;
}

class PipelineText : public testing::TestWithParam<Case> {};

TEST_P(PipelineText, TrainsAsOneProcessDoes) {
  const TempDir folder;
  write_text(folder.path());
  const fs::path recipe = folder / (GetParam().task + ".toml");
  const auto common = "train.micro_batch_size=2 " + GetParam().common;
  test::train_text(recipe, folder / "one", words_of(common));
  test::expect_processes("train", GetParam().world,
                         {.environment = {{"STOA_TEST_RECIPE", recipe},
                                          {"STOA_TEST_RUN", folder / "many"},
                                          {"STOA_TEST_SET", GetParam().split + " " + common}}});
  if (!HasFailure()) test::expect_equal_runs(folder / "one", folder / "many");
}

INSTANTIATE_TEST_SUITE_P(
    Splits, PipelineText,
    testing::Values(
        Case{"masked, 2 stages, clipped LAMB", "masked_text", 2, "parallel.pipeline=2",
             "optimizer.name=lamb train.clip_norm=0.3 train.ema=0.9"},
        Case{"causal, pre-norm, 3 stages of 5 layers, recomputed", "causal_text", 3,
             "parallel.pipeline=3 model.recompute=true",
             "model.norm=pre model.depth=5 train.clip_norm=0.3 train.clip=tensor train.micro_batch_size=1"},
        Case{"masked, one layer for both stages, 2 replicas", "masked_text", 4, "parallel.pipeline=2",
             "model.preset=albert model.depth=3 model.embedding_dim=12"},
        Case{"causal, 2 stages, sequences of 2", "causal_text", 4, "parallel.pipeline=2 parallel.sequence=2",
             ""},
        Case{"masked, 2 stages, weights of 2, clipped", "masked_text", 4,
             "parallel.pipeline=2 parallel.tensor=2", "train.clip_norm=0.3"}));

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

STOA_PROCESS_BODY(resume) {
  run_training({.recipe = {}, .out = {}, .resume = std::getenv("STOA_TEST_RUN"), .resume_step = 10},
               catalog());
}

TEST(PipelineCheckpoints, GoOnInOneProcessFromWhatStagesHaveSaved) {
  const TempDir folder;
  write_text(folder.path());
  const fs::path recipe = folder / "masked_text.toml";
  test::expect_processes(
      "train", 2,
      {.environment = {{"STOA_TEST_RECIPE", recipe},
                       {"STOA_TEST_RUN", folder / "many"},
                       {"STOA_TEST_SET", "parallel.pipeline=2 checkpoint.every=10 train.ema=0.9"}}});
  const auto end = read_events(folder / "many").back();
  EXPECT_TRUE(fs::exists(folder / "many" / "evaluation.json"));  // rank 0 had all layers to measure it
  const auto loaded = load_run(folder / "many", catalog(), "last", /*open_data=*/true);
  loaded.task->model().eval();
  EXPECT_NEAR(loaded.task->evaluate({.batch_size = 7, .progress = {}}).metrics["loss"],
              end.at("loss").get<double>(), 2e-5);
  fs::copy(folder / "many", folder / "alone", fs::copy_options::recursive);
  run_training({.recipe = {}, .out = {}, .resume = folder / "alone", .resume_step = 10}, catalog());
  test::expect_processes("resume", 2, {.environment = {{"STOA_TEST_RUN", folder / "many"}}});
  EXPECT_EQ(read_events(folder / "many").back().at("loss"), end.at("loss"));  // to the bit
  EXPECT_NEAR(read_events(folder / "alone").back().at("loss").get<double>(), end.at("loss").get<double>(),
              2e-5 * end.at("loss").get<double>());
}

/// A task in double, its model as the seed draws it.
std::unique_ptr<Task> make_task(const fs::path& folder, const std::string& name,
                                const std::vector<std::string>& set) {
  Config config = Config::from_file(folder / (name + ".toml"));
  for (const auto& assignment : set) config.set(assignment);
  const Recipe recipe = read_recipe(config, catalog());
  at::manual_seed(5);
  auto task = recipe.task->build({true, nullptr, {}});
  task->model().to(at::kDouble);
  task->model().train();
  return task;
}

void expect_equal_gradients(dist::World& world, const std::string& name, std::vector<std::string> set,
                            PipelineSchedule schedule = PipelineSchedule::kOneForwardOneBackward) {
  set.push_back("model.attention_dropout=0");  // which is ATen's in double
  const TempDir folder;
  write_text(folder.path());
  const auto one = make_task(folder.path(), name, set), many = make_task(folder.path(), name, set);
  const dist::SplitLayers layers(many->model(), world.all_shared());
  const auto batch = one->train_batches({.batch_size = 7, .seed = 3})->next();
  const auto wanted = accumulate_gradients(*one, batch, {}, 2, {}, true, {.seed = 11});
  const auto found = accumulate_gradients(*many, batch, {}, 2, {}, true,
                                          {.seed = 11, .layers = &layers, .schedule = schedule});
  ASSERT_EQ(found.losses.size(), wanted.losses.size());
  for (std::size_t i = 0; i < wanted.losses.size(); ++i)
    EXPECT_NEAR(found.losses[i].second, wanted.losses[i].second, 1e-12) << wanted.losses[i].first;
  EXPECT_EQ(found.metrics, wanted.metrics);
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
  STOA_EXPECT_CONTAINS(refused([](auto& o) { o.mixture_layers = -1; }, TextHead::kMasked), "mixture");
  STOA_EXPECT_CONTAINS(refused([](auto&) {}, TextHead::kClasses), "masked_text and causal_text");
  dist::ParallelOptions options;
  options.pipeline = 2;
  EXPECT_EQ(Team::refusal(options), "");
  options.zero = 1;
  STOA_EXPECT_CONTAINS(Team::refusal(options), "`parallel.zero` = 1");
  options.zero = 0;
  options.expert = 2;
  STOA_EXPECT_CONTAINS(Team::refusal(options), "`parallel.expert` = 2");
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
