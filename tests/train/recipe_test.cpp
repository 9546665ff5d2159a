#include "stoa/train/recipe.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/thrown.h"
#include "support/toy_task.h"

namespace stoa {
namespace {

using test::thrown;
using test::toy_catalog;
using test::toy_config;

std::string refusal(const Config& config) {
  return thrown<ConfigError>([&] { read_recipe(config, toy_catalog()); });
}

Config from(const std::string& text) {
  return Config::from_text(text, "r.toml");
}

constexpr const char* kNames = "task.name = \"toy_regression\"\nmodel.name = \"toy_net\"\n";

TEST(Recipe, ReadsItsOwnTablesAndThoseOfTheTask) {
  Recipe recipe =
      read_recipe(toy_config({"model.hidden=9", "train.clip=tensor", "title=A toy"}), toy_catalog());
  EXPECT_EQ(recipe.task_name, "toy_regression");
  EXPECT_EQ(recipe.model_name, "toy_net");
  EXPECT_EQ(recipe.title, "A toy");
  EXPECT_EQ(recipe.train.clip, ClipKind::kTensor);
  EXPECT_EQ(recipe.optimizer.lr, 0.01);
  EXPECT_EQ(recipe.resolved()["model"]["hidden"], 9);
}

TEST(Recipe, AMissingTaskNameIsAskedFor) {
  EXPECT_EQ(refusal(from("")), "r.toml: `task.name` is missing; known: toy_regression, toy_counting");
}

TEST(Recipe, AMisspeltTaskNameBringsTheNearestOne) {
  EXPECT_EQ(refusal(from("[task]\nname = \"toy_regresion\"")),
            "r.toml:2: `task.name` is \"toy_regresion\"; did you mean `toy_regression`?");
}

TEST(Recipe, AModelOfAnotherTaskIsRefusedWithThoseOfThisOne) {
  EXPECT_EQ(refusal(from("task.name = \"toy_regression\"\nmodel.name = \"abacus\"")),
            "r.toml:2: `model.name` is \"abacus\"; known: toy_net, other_net");
}

TEST(Recipe, ANameThatIsNoTextIsRefused) {
  EXPECT_EQ(refusal(from("task.name = 3")), "r.toml:1: `task.name` is 3; text in quotes is needed");
}

TEST(Recipe, AMisspeltKeyOfTheModelBringsLineAndNearest) {
  EXPECT_EQ(refusal(from(std::string(kNames) + "model.hiden = 4")),
            "r.toml:3: unknown key `model.hiden`; did you mean `model.hidden`?");
}

TEST(Recipe, AMisspeltTableBringsLineAndNearest) {
  EXPECT_EQ(refusal(from(std::string(kNames) + "[trian]\nsteps = 4")),
            "r.toml:3: unknown table `trian`; did you mean `train`?");
}

TEST(Recipe, AValueOfTheWrongTypeBringsTheLine) {
  STOA_EXPECT_CONTAINS(refusal(from(std::string(kNames) + "[train]\nsteps = \"ten\"")),
                       "r.toml:4: `train.steps` is text");
}

TEST(Recipe, AValueOutOfRangeBringsTheLine) {
  EXPECT_EQ(refusal(from(std::string(kNames) + "[train]\nbatch_size = 0")),
            "r.toml:4: `train.batch_size` is 0; at least 1 is needed");
}

TEST(Recipe, AValueOutOfRangeOfTheTaskBringsTheLine) {
  EXPECT_EQ(refusal(from(std::string(kNames) + "model.hidden = 0")),
            "r.toml:3: `model.hidden` must be at least 1");
}

TEST(Recipe, AValueFromTheCommandLineIsNamedAsSuch) {
  EXPECT_EQ(refusal(toy_config({"train.ema=1"})),
            "--set train.ema=1: `train.ema` is 1; at least 0 and less than 1 is needed, e.g. 0.999");
}

TEST(Recipe, EveryRangeOfTheTrainingIsChecked) {
  for (const char* assignment :
       {"train.steps=-1", "train.epochs=-0.5", "train.epochs=nan", "train.micro_batch_size=-1",
        "train.clip_norm=-1", "train.clip_norm=inf", "train.ema=-0.1", "train.log_every=0",
        "train.eval_every=-1", "train.eval_batch_size=0", "train.workers=-1", "checkpoint.every=-1",
        "checkpoint.keep_last=0"})
    STOA_EXPECT_CONTAINS(refusal(toy_config({assignment})), std::string("--set ") + assignment + ": `");
}

TEST(Recipe, EveryRangeOfOptimizerScheduleAndRuntimeIsChecked) {
  for (const char* assignment :
       {"optimizer.lr=-1", "optimizer.weight_decay=nan", "optimizer.betas=[0.9, 1.0]",
        "optimizer.betas=[0.9]", "optimizer.eps=-1", "optimizer.exclude=['']", "schedule.warmup=-1",
        "schedule.start=nan", "schedule.end=-1", "schedule.shift=-1", "runtime.threads=-1",
        "runtime.device='gpu'"})
    STOA_EXPECT_CONTAINS(refusal(toy_config({assignment})), std::string("--set ") + assignment + ": `");
}

TEST(Recipe, OutOfRangeInAFileBringsTheLine) {
  EXPECT_EQ(refusal(from(std::string(kNames) + "[optimizer]\nlr = -1")),
            "r.toml:4: `optimizer.lr` is -1; it must be >= 0");
}

TEST(Recipe, ResolvedReadsBackToTheSame) {
  Recipe recipe = read_recipe(toy_config({"train.clip_norm=0.1", "model.dropout=0.3"}), toy_catalog());
  Recipe again = read_recipe(from(to_toml(recipe.resolved())), toy_catalog());
  EXPECT_EQ(again.resolved().dump(), recipe.resolved().dump());
}

TEST(Recipe, ResolvedKeepsItsOrderWithNamesInFront) {
  Recipe recipe = read_recipe(toy_config(), toy_catalog());
  const Json resolved = recipe.resolved();
  std::vector<std::string> keys, model;
  for (const auto& [key, value] : resolved.items()) keys.push_back(key);
  for (const auto& [key, value] : resolved["model"].items()) model.push_back(key);
  EXPECT_EQ(keys,
            (std::vector<std::string>{"title", "description", "task", "data", "model", "initial", "optimizer",
                                      "schedule", "train", "checkpoint", "runtime", "parallel"}));
  EXPECT_EQ(model.front(), "name");
}

TEST(TotalSteps, StepsGoBeforeEpochs) {
  EXPECT_EQ(total_steps({.steps = 7, .epochs = 100}, 1000), 7);
}

TEST(TotalSteps, APartOfABatchIsAStep) {
  EXPECT_EQ(total_steps({.epochs = 2, .batch_size = 64}, 100), 4);  // 200 samples
}

TEST(TotalSteps, RoundingErrorsMakeNoStep) {
  EXPECT_EQ(total_steps({.epochs = 0.1, .batch_size = 1}, 1000), 100);
}

TEST(TotalSteps, ALengthIsNeeded) {
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([] { total_steps({}, 1000); }),
                       "give `train.steps` or `train.epochs`");
}

}  // namespace
}  // namespace stoa
