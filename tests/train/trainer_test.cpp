#include "stoa/train/trainer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/random.h"
#include "stoa/nn/parameters.h"
#include "stoa/train/training_step.h"
#include "support/temp_dir.h"
#include "support/thrown.h"
#include "support/toy_runs.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using test::checkpoint_of;
using test::everything;
using test::resume;
using test::start;
using test::thrown;
using test::toy_hooks;
using test::ToyScope;

/// What a power cut looks like from inside a step.
struct PowerCut : std::runtime_error {
  PowerCut() : std::runtime_error("power cut") {}
};

void start_and_stop_at(std::int64_t step, const fs::path& run, const std::vector<std::string>& set) {
  const ToyScope scope({.on_loss = [=](std::int64_t at) {
    if (at == step) throw PowerCut();
  }});
  EXPECT_THROW(start(run, set), PowerCut);
}

TEST(Training, ResumedAtAnyStepEndsTheSameToTheLastBit) {
  const ToyScope scope;
  const test::TempDir dir;
  const auto recipe = everything({"checkpoint.every=1", "train.steps=7"});
  start(dir / "whole", recipe);
  for (std::int64_t step = 1; step < 7; ++step) {
    const fs::path run = dir / std::to_string(step);
    start_and_stop_at(step, run, recipe);
    resume(run);
    test::expect_same_end(run, dir / "whole", 7);
  }
}

TEST(Training, ResumedFarFromACheckpointEndsTheSame) {
  const ToyScope scope;
  const test::TempDir dir;
  const auto recipe = everything({"checkpoint.every=7", "optimizer.name=lamb"});
  start(dir / "whole", recipe);
  start_and_stop_at(11, dir / "run", recipe);
  resume(dir / "run");
  test::expect_same_end(dir / "run", dir / "whole", 12);
}

TEST(Training, ResumedBeforeTheFirstCheckpointStartsAnew) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "whole", everything());
  start_and_stop_at(9, dir / "run", everything());
  resume(dir / "run");
  test::expect_same_end(dir / "run", dir / "whole", 12);
}

TEST(Training, ResumedFromANamedStepEndsTheSame) {
  const ToyScope scope;
  const test::TempDir dir;
  const auto recipe = everything({"checkpoint.every=3"});
  start(dir / "whole", recipe);
  start(dir / "run", recipe);
  resume(dir / "run", 6);
  test::expect_same_end(dir / "run", dir / "whole", 12);
  EXPECT_EQ(CheckpointStore(dir / "run/checkpoints").steps(), (std::vector<std::int64_t>{3, 6, 9, 12}));
}

TEST(Training, AnErrorOfTheEvaluationLosesNoStep) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "whole", everything());
  toy_hooks.on_evaluate = [] { throw PowerCut(); };
  EXPECT_THROW(start(dir / "run", everything()), PowerCut);
  toy_hooks = {};
  EXPECT_EQ(CheckpointStore(dir / "run/checkpoints").steps(), std::vector<std::int64_t>{4});
  resume(dir / "run");
  test::expect_equal(checkpoint_of(dir / "run", 12).model, checkpoint_of(dir / "whole", 12).model);
  EXPECT_EQ(test::timeless_log(dir / "run"), test::timeless_log(dir / "whole"));
}

TEST(Training, AFinishedRunIsNotTrainedAgain) {
  const ToyScope scope;
  const test::TempDir dir;
  const TrainResult first = start(dir / "run", everything());
  toy_hooks.on_loss = [](std::int64_t) { FAIL() << "a step was done"; };
  toy_hooks.on_evaluate = [] { FAIL() << "an evaluation was done"; };
  const TrainResult again = resume(dir / "run");
  EXPECT_EQ(again.metrics.items(), first.metrics.items());
  EXPECT_EQ(again.steps, 12);
}

TEST(Training, AMissingEvaluationFileIsMadeUpFor) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "run", everything());
  const Json before = read_json(dir / "run/evaluation.json");
  const auto log = test::timeless_log(dir / "run");
  fs::remove(dir / "run/evaluation.json");
  resume(dir / "run");
  EXPECT_EQ(read_json(dir / "run/evaluation.json")["metrics"], before["metrics"]);
  EXPECT_EQ(test::timeless_log(dir / "run"), log);
}

TEST(Training, AnEvaluationFileOfAnotherStepIsMadeAnew) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "run", everything());
  Json evaluation = read_json(dir / "run/evaluation.json");
  const Json metrics = evaluation["metrics"];
  evaluation["step"] = 4;
  evaluation["metrics"]["error"] = 99;
  write_file_atomically(dir / "run/evaluation.json", evaluation.dump());
  resume(dir / "run");
  EXPECT_EQ(read_json(dir / "run/evaluation.json")["step"], 12);
  EXPECT_EQ(read_json(dir / "run/evaluation.json")["metrics"], metrics);
}

TEST(Training, TheSeedAloneMakesTheRun) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "a", everything());
  at::manual_seed(99);
  start(dir / "b", everything());
  start(dir / "c", everything({"train.seed=1"}));
  test::expect_same_end(dir / "a", dir / "b", 12);
  EXPECT_FALSE(at::equal(checkpoint_of(dir / "a", 12).model.at("in.weight"),
                         checkpoint_of(dir / "c", 12).model.at("in.weight")));
}

TEST(Training, WorkersDoNotChangeIt) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "a", everything({"train.workers=0"}));
  start(dir / "b", everything({"train.workers=3"}));
  test::expect_same_end(dir / "a", dir / "b", 12);
}

TEST(Training, MicroBatchesDoNotChangeItsResult) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "a", {});
  start(dir / "b", {"train.micro_batch_size=3"});
  const Checkpoint whole = checkpoint_of(dir / "a", 12), cut = checkpoint_of(dir / "b", 12);
  for (const char* name : {"in.weight", "in.bias", "out.weight", "out.bias"})
    EXPECT_LT((whole.model.at(name) - cut.model.at(name)).abs().max().item<double>(), 1e-12) << name;
}

/// How far the first update moved the weights, all together.
double first_move(const fs::path& run, const std::vector<std::string>& more) {
  std::vector<std::string> set = {"optimizer.name=sgd",     "optimizer.lr=1", "optimizer.momentum=0",
                                  "schedule.name=constant", "train.steps=1",  "optimizer.weight_decay=0"};
  set.insert(set.end(), more.begin(), more.end());
  start(run, set);
  Recipe recipe = read_recipe(test::toy_config(set), test::toy_catalog());
  at::manual_seed(mix_seed({0, kInitialise}));
  const auto task = recipe.task->build({});
  double squares = 0;
  for (const auto& parameter : nn::distinct_parameters(task->model()))
    squares +=
        (checkpoint_of(run, 1).model.at(parameter.name) - parameter.tensor).square().sum().item<double>();
  return std::sqrt(squares);
}

TEST(Training, GradientsAreClippedToTheirJointNorm) {
  const ToyScope scope;
  const test::TempDir dir;
  EXPECT_GT(first_move(dir / "free", {}), 0.01);
  EXPECT_NEAR(first_move(dir / "global", {"train.clip_norm=0.001"}), 0.001, 1e-10);
}

TEST(Training, GradientsAreClippedTensorByTensor) {
  const ToyScope scope;
  const test::TempDir dir;
  EXPECT_NEAR(first_move(dir / "each", {"train.clip_norm=0.001", "train.clip=tensor"}), 0.002,
              1e-10);  // of 4 tensors
}

TEST(Training, TheNormIsLoggedAsItWasBeforeClipping) {
  const ToyScope scope;
  const test::TempDir dir;
  const double free = first_move(dir / "free", {});
  first_move(dir / "clipped", {"train.clip_norm=0.001"});
  EXPECT_NEAR(read_events(dir / "clipped").front()["gradient_norm"].get<double>(), free, 1e-12);
}

TEST(Training, AveragedWeightsFollowTheWeights) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "run", {"train.ema=0.5", "checkpoint.every=1", "checkpoint.keep_last=100", "train.steps=8"});
  at::Tensor average = checkpoint_of(dir / "run", 1).average.at("in.weight");
  for (std::int64_t step = 2; step <= 8; ++step) {
    const double t = static_cast<double>(step), decay = std::min(0.5, (1 + t) / (10 + t));
    const Checkpoint checkpoint = checkpoint_of(dir / "run", step);
    average = decay * average + (1 - decay) * checkpoint.model.at("in.weight");
    EXPECT_LT((average - checkpoint.average.at("in.weight")).abs().max().item<double>(), 1e-12);
  }
}

TEST(Training, EvaluatesAndLoadsTheAveragedWeights) {
  const ToyScope scope;
  const test::TempDir dir;
  const TrainResult result = start(dir / "run", {"train.ema=0.9"});
  const LoadedRun loaded = load_run(dir / "run", test::toy_catalog(), "last", true);
  const Checkpoint last = checkpoint_of(dir / "run", 12);
  EXPECT_TRUE(
      at::equal(nn::module_state(loaded.task->model()).at("in.weight"), last.average.at("in.weight")));
  EXPECT_FALSE(at::equal(last.model.at("in.weight"), last.average.at("in.weight")));
  const at::NoGradGuard no_gradients;
  EXPECT_EQ(loaded.task->evaluate({}).metrics["error"], result.metrics["error"]);
}

TEST(Training, TheLineHasTheMeanLossSinceTheLastOne) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "each", {"train.log_every=1", "model.activity_cost=0.1"});
  start(dir / "five", {"train.log_every=5", "model.activity_cost=0.1"});
  const auto each = read_events(dir / "each"), five = read_events(dir / "five");
  for (const char* name : {"loss", "activity", "absolute_error"}) {
    double mean = 0;
    for (std::size_t i = 5; i < 10; ++i) mean += each[i][name].get<double>() / 5;
    EXPECT_NEAR(five[1][name].get<double>(), mean, 1e-12) << name;
  }
}

TEST(Training, LinesAreWrittenEverySoManyStepsAndAtTheEnd) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "run", {"train.log_every=5", "train.eval_every=10"});
  std::vector<std::string> lines;
  for (const Json& line : read_events(dir / "run"))
    lines.push_back(line["kind"].get<std::string>() + line["step"].dump());
  EXPECT_EQ(lines, (std::vector<std::string>{"train5", "train10", "eval10", "train12", "eval12"}));
}

TEST(Training, ALineHasRateStatisticsAndSpeed) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "run", {"schedule.name=constant", "optimizer.lr=0.5"});
  const Json line = read_events(dir / "run").front();
  EXPECT_EQ(line["lr"], 0.5);
  EXPECT_EQ(line["statistics"]["units"].size(), 5);
  EXPECT_GT(line["samples_per_second"], 0);
}

TEST(Training, ALossThatIsNotFiniteStopsWithStepAndCheckpoint) {
  const ToyScope scope({.infinite_loss_at = 9});
  const test::TempDir dir;
  const auto message = thrown<Error>([&] { start(dir / "run", {"checkpoint.every=4"}); });
  STOA_EXPECT_CONTAINS(message, "step 10: the loss is inf");
  STOA_EXPECT_CONTAINS(message, "the last good checkpoint is " + (dir / "run/checkpoints/step-8").string());
}

TEST(Training, AGradientThatIsNotFiniteIsNamed) {
  const ToyScope scope({.bad_gradient_at = 2});
  const test::TempDir dir;
  const auto message = thrown<Error>([&] { start(dir / "run", {}); });
  STOA_EXPECT_CONTAINS(message, "step 3: the norm of the gradients, that of `out.bias` first, is nan");
  STOA_EXPECT_CONTAINS(message, "there is no checkpoint yet");
}

TEST(Training, TheBestCheckpointIsKept) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "run", {"checkpoint.every=2", "checkpoint.keep_last=1", "train.eval_every=2", "optimizer.lr=3",
                      "schedule.name=constant"});
  double least = 1e9;
  std::int64_t best = 0;
  for (const Json& line : read_events(dir / "run"))
    if (line["kind"] == "eval" && line["error"] < least) {
      least = line["error"];
      best = line["step"];
    }
  EXPECT_EQ(load_run(dir / "run", test::toy_catalog(), "best", true).step, best);
}

TEST(RunTraining, WritesWhatLaterCommandsNeed) {
  const ToyScope scope;
  const test::TempDir dir;
  const TrainResult result = start(dir / "run", {});
  const Json info = read_json(dir / "run/run.json"), evaluation = read_json(dir / "run/evaluation.json");
  EXPECT_EQ(info["parameters"], 26);
  EXPECT_EQ(info["metadata"]["inputs"][1], "b");
  EXPECT_EQ(evaluation["step"], 12);
  EXPECT_EQ(evaluation["metrics"]["error"], result.metrics["error"]);
  EXPECT_GT(evaluation["speed"]["samples_per_second"], 0);
  EXPECT_GT(evaluation["speed"]["latency_ms"], 0);
  EXPECT_EQ(evaluation["exhibits"].size(), 1);
}

TEST(RunTraining, PicksAFreeFolder) {
  const ToyScope scope;
  const test::TempDir dir;
  const fs::path before = fs::current_path();
  fs::current_path(dir.path());
  EXPECT_EQ(start("", {"train.seed=4"}).run, "runs/toy-4");
  EXPECT_EQ(start("", {"train.seed=4"}).run, "runs/toy-4-2");
  fs::current_path(before);
}

TEST(RunTraining, DataThatAreMissingLeaveNoRun) {
  const ToyScope scope;
  const test::TempDir dir;
  EXPECT_THROW(start(dir / "run", {"data.missing=true"}), DataError);
  EXPECT_FALSE(fs::exists(dir / "run"));
}

TEST(RunTraining, ADamagedCheckpointIsRefusedAndTheOneBeforeOffered) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "run", {"checkpoint.every=6"});
  fs::resize_file(dir / "run/checkpoints/step-12/optimizer.safetensors", 100);
  const auto message = thrown<DataError>([&] { resume(dir / "run"); });
  STOA_EXPECT_CONTAINS(message, "step-12/optimizer.safetensors has 100 bytes");
  STOA_EXPECT_CONTAINS(message, "the checkpoint of step 6 is intact: take it with --step 6");
  STOA_EXPECT_CONTAINS(message, "--checkpoint 6");
  EXPECT_EQ(resume(dir / "run", 6).steps, 12);
}

TEST(RunTraining, AnotherRecipeDoesNotGoOnWithARun) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "run", {});
  const TrainRequest request = {
      .recipe = test::toy_config({"model.hidden=4"}), .out = {}, .resume = dir / "run", .resume_step = {}};
  STOA_EXPECT_CONTAINS(
      thrown<ConfigError>([&] { run_training(request, test::toy_catalog()); }),
      "`model.hidden` is 5 in the run, 4 in the recipe; resume it without naming a recipe, or start a "
      "new run (from its weights: --set initial.weights=" +
          (dir / "run").string());
}

TEST(LoadRun, FindsCheckpointsByName) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "run", {"checkpoint.every=6"});
  const auto step = [&](const std::string& name) {
    return load_run(dir / "run", test::toy_catalog(), name, true).step;
  };
  EXPECT_EQ(step("last"), 12);
  EXPECT_EQ(step("6"), 6);
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { step("7"); }), "there are: 6, 12");
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { step("bets"); }), "\"last\", \"best\" or a step is needed");
}

TEST(LoadRun, AMissingRunBringsTheNearestOne) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "first", {});
  start(dir / "other", {});
  fs::create_directories(dir / "fst");  // as near, but no run
  STOA_EXPECT_CONTAINS(
      thrown<ConfigError>([&] { load_run(dir / "fist/", test::toy_catalog(), "last", true); }),
      "it does not exist; did you mean `" + (dir / "first").string() + "`?");
}

TEST(LoadRun, NeedsNoData) {
  const ToyScope scope;
  const test::TempDir dir;
  start(dir / "run", {});
  Config recipe = RunFolder::open(dir / "run").recipe();
  recipe.set("data.missing=true");
  write_file_atomically(dir / "run/recipe.toml", to_toml(recipe.values()));
  EXPECT_FALSE(load_run(dir / "run", test::toy_catalog(), "last", false).task->model().is_training());
}

TEST(LoadRun, WithoutACheckpointSaysHowToGetOne) {
  const ToyScope scope;
  const test::TempDir dir;
  start_and_stop_at(3, dir / "run", {});
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { load_run(dir / "run", test::toy_catalog(), "last", true); }),
                       "has no checkpoint yet");
}

TEST(MeasureInference, LeavesTheModelInItsMode) {
  test::ToyTask task({});
  for (const bool training : {true, false}) {
    task.model().train(training);
    measure_inference(task, Runtime{}, 4);
    EXPECT_EQ(task.model().is_training(), training);
  }
}

}  // namespace
}  // namespace stoa
