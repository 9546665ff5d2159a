#include "stoa/base/options.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using test::thrown;

enum class Optimizer { kAdamW, kSgd, kRmsprop };
enum class Fill { kToken, kChoice };
enum class Preset { kPaper, kCode };

struct OptimizerOptions {
  Optimizer name = Optimizer::kAdamW;
  double lr = 1e-3;
  double momentum = 0.9;
  double decay = 0.99;

  void visit(FieldVisitor& v) {
    v.choice("name", name,
             {{"adamw", Optimizer::kAdamW}, {"sgd", Optimizer::kSgd}, {"rmsprop", Optimizer::kRmsprop}},
             "update rule");
    v.field("lr", lr, "peak learning rate");
    v.when(name == Optimizer::kSgd, "name = \"sgd\"", [&] { v.field("momentum", momentum, "momentum"); });
    v.when(name == Optimizer::kRmsprop, "name = \"rmsprop\"", [&] {
      v.field("momentum", momentum, "momentum");
      v.field("decay", decay, "decay of the squares");
    });
  }
};

struct ModelOptions {
  Preset preset = Preset::kPaper;
  Fill fill = Fill::kToken;
  bool moe = false;
  std::int64_t experts = 4;
  bool noisy = false;
  double noise = 1;
  std::vector<std::int64_t> sizes = {1, 2};
  std::vector<double> rates = {0.5};
  std::vector<std::string> parts = {"a"};

  void visit(FieldVisitor& v) {
    v.preset("preset", preset, {{"paper", Preset::kPaper}, {"code", Preset::kCode}},
             "where defaults come from",
             [&] { fill = preset == Preset::kCode ? Fill::kChoice : Fill::kToken; });
    v.choice("fill", fill, {{"token", Fill::kToken}, {"choice", Fill::kChoice}}, "order of filling");
    v.field("moe", moe, "use a mixture");
    v.when(moe, "moe = true", [&] {
      v.enter("router", "the router");
      v.field("experts", experts, "number of experts");
      v.field("noisy", noisy, "add noise");
      v.when(noisy, "noisy = true", [&] { v.field("noise", noise, "its scale"); });
      v.leave();
    });
    v.field("sizes", sizes, "sizes");
    v.field("rates", rates, "rates");
    v.field("parts", parts, "parts");
  }
};

struct TrainOptions {
  std::int64_t steps = 100;
  std::int64_t batch_size = 8;
  void visit(FieldVisitor& v) {
    v.field("steps", steps, "number of steps");
    v.field("batch_size", batch_size, "samples a step");
  }
};

struct Recipe {
  std::string name = "run";
  TrainOptions train;
  ModelOptions model;
  OptimizerOptions optimizer;

  void visit(FieldVisitor& v) {
    v.field("name", name, "name of the run");
    v.group("train", train, "training");
    v.group("model", model, "the model");
    v.group("optimizer", optimizer, "the optimiser");
  }
};

Recipe read(std::string_view text) {
  Recipe recipe;
  read_options(Config::from_text(text, "recipe.toml"), recipe);
  return recipe;
}

std::string error(std::string_view text) {
  return thrown<ConfigError>([&] { read(text); });
}

std::string set_error(const std::string& assignment) {
  return thrown<ConfigError>([&] {
    Config config = Config::from_text("", "recipe.toml");
    config.set(assignment);
    Recipe recipe;
    read_options(config, recipe);
  });
}

TEST(OptionsReader, FieldsOfEveryTypeAreSet) {
  const Recipe recipe = read(R"(
name = "first"
train = {steps = 5, batch_size = 2}
optimizer.name = "sgd"
optimizer.momentum = 0.5
[model]
fill = "choice"
moe = true
sizes = [7, 8, 9]
rates = [1, 0.25]
parts = []
router = {experts = 16}
)");
  EXPECT_EQ(recipe.name, "first");
  EXPECT_EQ(recipe.train.steps, 5);
  EXPECT_EQ(recipe.optimizer.name, Optimizer::kSgd);
  EXPECT_EQ(recipe.optimizer.momentum, 0.5);
  EXPECT_EQ(recipe.model.fill, Fill::kChoice);
  EXPECT_TRUE(recipe.model.moe);
  EXPECT_EQ(recipe.model.sizes, (std::vector<std::int64_t>{7, 8, 9}));
  EXPECT_EQ(recipe.model.rates, (std::vector<double>{1, 0.25}));
  EXPECT_TRUE(recipe.model.parts.empty());
  EXPECT_EQ(recipe.model.experts, 16);
}

TEST(OptionsReader, AbsentKeysKeepTheirDefaults) {
  EXPECT_EQ(read("").train.steps, 100);
  EXPECT_EQ(read("[train]\nsteps = 5").train.batch_size, 8);
}

TEST(OptionsReader, AnIntegerIsANumber) {
  EXPECT_EQ(read("[optimizer]\nlr = 1").optimizer.lr, 1.0);
}

TEST(OptionsReader, ANumberIsNoInteger) {
  EXPECT_EQ(error("[train]\nsteps = 3.5"),
            "recipe.toml:2: `train.steps` is the number 3.5; an integer is needed");
  EXPECT_EQ(error("[train]\nsteps = 3.0"),
            "recipe.toml:2: `train.steps` is the number 3.0; an integer is needed: write 3");
  EXPECT_EQ(error("[train]\nsteps = inf"),
            "recipe.toml:2: `train.steps` is the number inf; an integer is needed");
}

TEST(OptionsReader, AWrongTypeIsNamedWithWhatWasFoundAndWhatIsNeeded) {
  EXPECT_EQ(error("\n[train]\nsteps = \"ten\""),
            "recipe.toml:3: `train.steps` is text (\"ten\"); an integer is needed");
  EXPECT_EQ(error("model.moe = 1"), "recipe.toml:1: `model.moe` is the integer 1; true or false is needed");
  EXPECT_EQ(error("optimizer.lr = true"), "recipe.toml:1: `optimizer.lr` is true; a number is needed");
  EXPECT_EQ(error("name = [1]"), "recipe.toml:1: `name` is a list; text in quotes is needed");
  EXPECT_EQ(error("train = 5"), "recipe.toml:1: `train` is the integer 5; a table is needed: [train]");
}

TEST(OptionsReader, AWrongListIsNamedWithThePlaceOfTheWrongItem) {
  EXPECT_EQ(
      error("model.sizes = [1, \"two\"]"),
      "recipe.toml:1: `model.sizes` is a list with text (\"two\") at place 2; a list of integers is needed");
  EXPECT_EQ(error("model.sizes = 5"),
            "recipe.toml:1: `model.sizes` is the integer 5; a list of integers is needed: write [5]");
}

TEST(OptionsReader, TextThatLooksLikeANumberOnTheCommandLineIsToldToBeQuoted) {
  EXPECT_EQ(set_error("name=5"),
            "--set name=5: `name` is the integer 5; text in quotes is needed: write \"5\"");
}

TEST(OptionsReader, AnUnknownKeyNamesTheNearest) {
  EXPECT_EQ(error("[train]\nbach_size = 8"),
            "recipe.toml:2: unknown key `train.bach_size`; did you mean `train.batch_size`?");
  EXPECT_EQ(set_error("train.stesp=5"),
            "--set train.stesp=5: unknown key `train.stesp`; did you mean `train.steps`?");
}

TEST(OptionsReader, AKeyInTheWrongTableNamesTheRightOne) {
  EXPECT_EQ(error("batch_size = 8"),
            "recipe.toml:1: unknown key `batch_size`; did you mean `train.batch_size`?");
}

TEST(OptionsReader, AnUnknownKeyLikeNoOtherListsAll) {
  EXPECT_EQ(error("[train]\ncolour = 1"),
            "recipe.toml:2: unknown key `train.colour`; known: batch_size, steps");
}

TEST(OptionsReader, AnUnknownTableNamesTheNearest) {
  EXPECT_EQ(error("[trian]\nsteps = 5"), "recipe.toml:1: unknown table `trian`; did you mean `train`?");
  EXPECT_EQ(error("[train.extra]"), "recipe.toml:1: unknown table `train.extra`; known: batch_size, steps");
}

TEST(OptionsReader, ANameOutsideAChoiceNamesTheNearestOrAll) {
  EXPECT_EQ(error("\n[model]\nfill = \"tokn\""),
            "recipe.toml:3: `model.fill` is \"tokn\"; did you mean \"token\"?");
  EXPECT_EQ(error("model.fill = \"zigzag\""),
            "recipe.toml:1: `model.fill` is \"zigzag\"; known: \"token\", \"choice\"");
  EXPECT_EQ(error("model.fill = 1"),
            "recipe.toml:1: `model.fill` is the integer 1; text in quotes is needed");
}

TEST(OptionsReader, AKeyWhoseConditionDoesNotHoldIsRefusedWithTheCondition) {
  EXPECT_EQ(error("[optimizer]\ndecay = 0.5"),
            "recipe.toml:2: `optimizer.decay` applies only when name = \"rmsprop\"");
  EXPECT_EQ(error("[model.router]\nexperts = 8"),
            "recipe.toml:1: `model.router` applies only when moe = true");
  EXPECT_EQ(error("[model]\nmoe = true\nrouter.noise = 2"),
            "recipe.toml:3: `model.router.noise` applies only when noisy = true");
}

TEST(OptionsReader, AKeyListedUnderTwoConditionsAppliesUnderEither) {
  EXPECT_EQ(read("optimizer = {name = \"sgd\", momentum = 0.1}").optimizer.momentum, 0.1);
  EXPECT_EQ(read("optimizer = {name = \"rmsprop\", momentum = 0.1}").optimizer.momentum, 0.1);
  EXPECT_EQ(error("[optimizer]\nmomentum = 0.5"),
            "recipe.toml:2: `optimizer.momentum` applies only when name = \"sgd\" or name = \"rmsprop\"");
}

// A misspelt key may be the reason why the condition does not hold.
TEST(OptionsReader, UnknownKeysAreReportedBeforeConditions) {
  EXPECT_EQ(error("[optimizer]\nmomentum = 0.5\nnmae = \"sgd\""),
            "recipe.toml:3: unknown key `optimizer.nmae`; did you mean `optimizer.name`?");
}

TEST(OptionsReader, APresetSetsFieldsAndLaterKeysOverrideIt) {
  EXPECT_EQ(read("model.preset = \"code\"").model.fill, Fill::kChoice);
  EXPECT_EQ(read("model = {preset = \"code\", fill = \"token\"}").model.fill, Fill::kToken);
}

TEST(OptionsWriter, FieldsAreNestedAndThoseThatDoNotApplyAreLeftOut) {
  Recipe recipe;
  EXPECT_EQ(write_options(recipe), Json::parse(R"({"name": "run", "train": {"steps": 100, "batch_size": 8},
    "model": {"preset": "paper", "fill": "token", "moe": false, "sizes": [1, 2], "rates": [0.5], "parts": ["a"]},
    "optimizer": {"name": "adamw", "lr": 0.001}})"));
}

TEST(OptionsWriter, WritingDoesNotApplyPresets) {
  Recipe recipe;
  recipe.model.preset = Preset::kCode;
  EXPECT_EQ(write_options(recipe)["model"]["fill"], "token");
}

TEST(OptionsWriter, WhatWasWrittenReadsBackToTheSame) {
  Recipe recipe = read(
      "optimizer = {name = \"sgd\", lr = 1.0}\nmodel = {preset = \"code\", fill = \"token\", moe = true}");
  const Json written = write_options(recipe);
  Recipe again = read(to_toml(written));
  EXPECT_EQ(write_options(again), written);
}

const FieldDoc* find(const std::vector<FieldDoc>& docs, const std::string& key) {
  const auto found = std::ranges::find(docs, key, &FieldDoc::key);
  return found == docs.end() ? nullptr : &*found;
}

class OptionsDocumenter : public ::testing::Test {
 protected:
  const std::vector<FieldDoc> docs_ = document_fields([](FieldVisitor& v) {
    static Recipe recipe;
    recipe.visit(v);
  });
};

TEST_F(OptionsDocumenter, EachFieldHasKeyTypeDefaultAndHelp) {
  const FieldDoc* lr = find(docs_, "optimizer.lr");
  ASSERT_NE(lr, nullptr);
  EXPECT_EQ(lr->type, "number");
  EXPECT_EQ(lr->value, "0.001");
  EXPECT_EQ(lr->help, "peak learning rate");
  EXPECT_EQ(lr->condition, "");
}

TEST_F(OptionsDocumenter, TypesAreNamedForPeople) {
  EXPECT_EQ(find(docs_, "name")->type, "text");
  EXPECT_EQ(find(docs_, "train.steps")->type, "integer");
  EXPECT_EQ(find(docs_, "model.moe")->type, "true/false");
  EXPECT_EQ(find(docs_, "model.fill")->type, "token | choice");
  EXPECT_EQ(find(docs_, "model.sizes")->type, "list of integers");
  EXPECT_EQ(find(docs_, "model.parts")->value, "[\"a\"]");
}

TEST_F(OptionsDocumenter, FieldsThatDoNotApplyAreListedWithTheirConditions) {
  EXPECT_EQ(find(docs_, "model.router.noise")->condition, "moe = true and noisy = true");
  EXPECT_EQ(find(docs_, "optimizer.momentum")->condition, "name = \"sgd\" or name = \"rmsprop\"");
}

TEST_F(OptionsDocumenter, EveryFieldIsListedOnce) {
  EXPECT_EQ(docs_.size(), 16u);
}

}  // namespace
}  // namespace stoa
