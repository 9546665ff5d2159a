#include "stoa/train/experiment.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/train/experiment_run.h"
#include "stoa/train/run_record.h"
#include "support/html_check.h"
#include "support/temp_dir.h"
#include "support/thrown.h"
#include "support/toy_task.h"

namespace stoa {
namespace {

using test::ToyScope;

constexpr const char* kExperiment = R"(title = "A toy & its <rows>"
text = """
Two widths.

[[row]] in a text is no table.
"""
reading = "- **wider** is not better"
seeds = [3, 4, 8]
set = ["train.steps=6"]

[[row]]
name = "Narrow | 2"
recipe = "recipes/toy.toml"
set = ["model.hidden=2"]

[[row]]
name = "Wide"
recipe = "recipes/toy.toml"

[[column]]
value = "parameters"
heading = "Parameters"
digits = 0

[[column]]
value = "eval.error"
heading = "Error, %"
scale = 100
digits = 3

[[column]]
value = "train.units"
)";

class ExperimentTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(dir_ / "recipes");
    std::filesystem::create_directories(dir_ / "experiments");
    write_file_atomically(dir_ / "recipes/toy.toml", to_toml(test::toy_config().values()));
    write(kExperiment);
  }
  void write(const std::string& text) { write_file_atomically(file(), text); }
  void write_with(const std::string& old, const std::string& replacement) {
    std::string text = kExperiment;
    text.replace(text.find(old), old.size(), replacement);
    write(text);
  }
  std::filesystem::path file() const { return dir_ / "experiments/widths.toml"; }
  std::string refused() const {
    return test::thrown<ConfigError>([&] { read_experiment(file()); });
  }

  // Runs it and counts the steps that were trained.
  Json run(int* steps = nullptr) {
    int count = 0;
    const ToyScope scope({.on_loss = [&](std::int64_t) { ++count; }});
    const Json table = run_experiment(file(), dir_ / "runs", {}, test::toy_catalog());
    if (steps != nullptr) *steps = count;
    return table;
  }
  std::string page(const char* name) const { return read_file(dir_ / "experiments" / name); }

  test::TempDir dir_;
};

TEST_F(ExperimentTest, IsReadWhole) {
  const Experiment experiment = read_experiment(file());
  EXPECT_EQ(experiment.title, "A toy & its <rows>");
  EXPECT_EQ(experiment.seeds, (std::vector<std::int64_t>{3, 4, 8}));
  ASSERT_EQ(experiment.rows.size(), 2U);
  EXPECT_EQ(experiment.rows[0].set, (std::vector<std::string>{"model.hidden=2"}));
  ASSERT_EQ(experiment.columns.size(), 3U);
  EXPECT_EQ(experiment.columns[1].scale, 100);
  EXPECT_EQ(experiment.columns[1].digits, 3);
  EXPECT_EQ(experiment.columns[2].heading, "train.units");
}

TEST_F(ExperimentTest, UnknownKeysAreNamedWithTheirLine) {
  write_with("recipe = \"recipes/toy.toml\"\n\n[[column]]", "recipes = \"recipes/toy.toml\"\n\n[[column]]");
  STOA_EXPECT_CONTAINS(refused(), "widths.toml:18: ");
  STOA_EXPECT_CONTAINS(refused(), "did you mean `recipe`?");
}

TEST_F(ExperimentTest, UnknownTablesAreNamedWithTheirLine) {
  write_with("[[column]]", "[[colum]]");
  STOA_EXPECT_CONTAINS(refused(), "widths.toml:20: unknown table [[colum]]; did you mean `column`?");
}

TEST_F(ExperimentTest, WrongTypesAreNamedWithTheirLine) {
  write_with("seeds = [3, 4, 8]", "seeds = 3");
  STOA_EXPECT_CONTAINS(refused(), "widths.toml:8: ");
  write_with("digits = 3", "digits = -1");
  STOA_EXPECT_CONTAINS(refused(), "widths.toml:29: `digits` is -1");
}

TEST_F(ExperimentTest, MissingRecipesAreNamedWithTheirLine) {
  write_with("recipes/toy.toml", "recipes/tiy.toml");
  STOA_EXPECT_CONTAINS(refused(), "widths.toml:13: there is no recipe recipes/tiy.toml");
}

TEST_F(ExperimentTest, WhatATableNeedsIsSaid) {
  write_with("name = \"Wide\"\n", "");
  STOA_EXPECT_CONTAINS(refused(), "widths.toml:16: this [[row]] has no `name`");
  write_with("value = \"eval.error\"\n", "");
  STOA_EXPECT_CONTAINS(refused(), "widths.toml:25: this [[column]] has no `value`");
  write("title = \"none\"");
  STOA_EXPECT_CONTAINS(refused(), "has no [[row]]");
  write("seeds = [1]");
  STOA_EXPECT_CONTAINS(refused(), "has no `title`");
}

TEST_F(ExperimentTest, SeedsMustDiffer) {
  write_with("[3, 4, 8]", "[3, 4, 3]");
  STOA_EXPECT_CONTAINS(refused(), "each only once");
  write_with("[3, 4, 8]", "[]");
  STOA_EXPECT_CONTAINS(refused(), "at least one seed");
}

TEST_F(ExperimentTest, RowsMustHaveFoldersOfTheirOwn) {
  write_with("Narrow | 2", "wide!");
  STOA_EXPECT_CONTAINS(refused(), "widths.toml:16: rows `wide!` and `Wide`");
}

TEST_F(ExperimentTest, WhatIsNotTomlIsSaidWithItsLine) {
  write_with("seeds = [3", "seeds = [[3");
  STOA_EXPECT_CONTAINS(refused(), "not valid TOML");
}

TEST(ExperimentFolders, AreNamedLikeTheirRows) {
  EXPECT_EQ(run_folder_name("WideNet, experts f=64 (2.5x)", 7), "widenet-experts-f-64-2.5x-7");
  EXPECT_EQ(run_folder_name("../a/b", 0), "..-a-b-0");
}

TEST(ExperimentCells, SpreadIsTheSampleStandardDeviation) {
  const ExperimentCell cell{{2.0, 4.0, 9.0}};
  EXPECT_DOUBLE_EQ(*cell.mean(), 5);
  EXPECT_DOUBLE_EQ(*cell.spread(), std::sqrt((9.0 + 1.0 + 16.0) / 2));
}

TEST(ExperimentCells, EqualValuesHaveNoSpread) {
  EXPECT_EQ((ExperimentCell{{0.1, 0.1, 0.1}}.spread()), 0);
}

TEST(ExperimentCells, LeaveOutWhatIsAbsent) {
  EXPECT_EQ((ExperimentCell{{std::nullopt, 3.0}}.mean()), 3);
  EXPECT_EQ((ExperimentCell{{std::nullopt, 3.0}}.spread()), std::nullopt);
  EXPECT_EQ((ExperimentCell{{std::nullopt}}.mean()), std::nullopt);
}

TEST_F(ExperimentTest, RunsEveryRowAndSeedAndGivesBackTheirValues) {
  int steps = 0;
  const Json table = run(&steps);
  EXPECT_EQ(steps, 2 * 3 * 6);
  const Json& narrow = table["rows"][0];
  EXPECT_EQ(narrow["name"], "Narrow | 2");
  EXPECT_EQ(narrow["values"]["parameters"]["mean"], 3 * 2 + 2 + 2 + 1);
  double sum = 0;
  for (const int seed : {3, 4, 8})
    sum += *read_run(dir_ / ("runs/narrow-2-" + std::to_string(seed))).value("eval.error");
  EXPECT_NEAR(narrow["values"]["eval.error"]["mean"], 100 * sum / 3, 1e-9);
  EXPECT_GT(narrow["values"]["eval.error"]["sd"], 0);
  EXPECT_EQ(narrow["values"]["eval.error"]["values"].size(), 3U);
}

TEST_F(ExperimentTest, FinishedRunsAreNotRunAgain) {
  const Json first = run();
  const std::string markdown = page("widths.md"), html = page("widths.html");
  int steps = -1;
  EXPECT_EQ(run(&steps), first);
  EXPECT_EQ(steps, 0);
  EXPECT_EQ(page("widths.md"), markdown);
  EXPECT_EQ(page("widths.html"), html);
}

TEST_F(ExperimentTest, OnlyWhatIsMissingIsRun) {
  run();
  std::filesystem::remove_all(dir_ / "runs/wide-4");
  int steps = 0;
  run(&steps);
  EXPECT_EQ(steps, 6);
}

TEST_F(ExperimentTest, AnInterruptedRunGoesOnFromItsCheckpoint) {
  const Json whole = run();
  std::filesystem::remove_all(dir_ / "runs");
  write_with("\"train.steps=6\"", "\"train.steps=6\", \"checkpoint.every=2\"");
  {
    int count = 0;
    const ToyScope scope({.on_loss = [&](std::int64_t) {
      if (++count == 6 + 4) throw std::runtime_error("power cut");  // in the second run, after its step 2
    }});
    EXPECT_THROW(run_experiment(file(), dir_ / "runs", {}, test::toy_catalog()), std::runtime_error);
  }
  int steps = 0;
  EXPECT_EQ(run(&steps), whole);
  EXPECT_EQ(steps, 4 * 6 + 4);
}

TEST_F(ExperimentTest, ARunMeasuredAtAnotherStepIsMeasuredAgain) {
  const Json whole = run();
  const auto evaluation = dir_ / "runs/wide-4/evaluation.json";
  Json altered = read_json(evaluation);
  altered["step"] = 3;
  altered["metrics"]["error"] = 99;
  write_file_atomically(evaluation, altered.dump());
  int steps = -1;
  EXPECT_EQ(run(&steps), whole);
  EXPECT_EQ(steps, 0);
}

TEST_F(ExperimentTest, BeingStoppedSaysThatTheSameCommandGoesOn) {
  const ToyScope scope(
      {.on_loss = [](std::int64_t) { throw Interrupted("stopped; stoa train --resume run"); }});
  EXPECT_EQ(
      test::thrown<Interrupted>([&] { run_experiment(file(), dir_ / "runs", {}, test::toy_catalog()); }),
      file().string() + ": stopped in run 1 of 6, row `Narrow | 2`, seed 3; the same command goes on");
}

TEST_F(ExperimentTest, ARunOfAnotherRecipeIsRefusedByName) {
  run();
  write_with("model.hidden=2", "model.hidden=7");
  const auto message = test::thrown<ConfigError>([&] { run(); });
  STOA_EXPECT_CONTAINS(message, "row `Narrow | 2`, seed 3");
  STOA_EXPECT_CONTAINS(message, "`model.hidden` is 2 in the run, 7 in the recipe");
}

TEST_F(ExperimentTest, AMistakeInTheLastRowIsFoundBeforeTheFirstRuns) {
  write_with("name = \"Wide\"", "name = \"Wide\"\nset = [\"model.hiden=3\"]");
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] { run(); }), "did you mean `model.hidden`?");
  EXPECT_FALSE(std::filesystem::exists(dir_ / "runs"));
}

TEST_F(ExperimentTest, TheMarkdownPageHasTheTableAndTheCommand) {
  const Json table = run();
  const std::string text = page("widths.md");
  const auto& error = table["rows"][1]["values"]["eval.error"];
  const auto cell = format("{:.3f} ± {:.3f}", error["mean"].get<double>(), error["sd"].get<double>());
  STOA_EXPECT_CONTAINS(text, "# A toy & its <rows>\n");
  STOA_EXPECT_CONTAINS(
      text, "| Row | Parameters | Error, % | train.units |\n|---|---:|---:|---:|\n| Narrow \\| 2 | 11 | ");
  STOA_EXPECT_CONTAINS(text, "| Wide | 26 | " + cell + " |");
  STOA_EXPECT_CONTAINS(text, "over 3 seeds (3, 4, 8)");
  STOA_EXPECT_CONTAINS(text, "`stoa experiment experiments/widths.toml`");
  STOA_EXPECT_CONTAINS(text, "`recipes/toy.toml --set train.steps=6 --set model.hidden=2`");
  EXPECT_EQ(test::count_of(text, "\n| Wide |"), 1U + 3U + 1U);
  EXPECT_EQ(test::count_of(text, dir_.path().string()), 0U);
}

TEST_F(ExperimentTest, TheHtmlPageIsWellFormedAndSelfContained) {
  const Json table = run();
  const std::string text = page("widths.html");
  EXPECT_EQ(test::markup_fault(text), "");
  STOA_EXPECT_CONTAINS(text, "<h1>A toy &amp; its &lt;rows&gt;</h1>");
  STOA_EXPECT_CONTAINS(text, "<li><strong>wider</strong> is not better</li>");
  STOA_EXPECT_CONTAINS(text, "<th scope=\"row\">Wide</th><td>26</td><td>");
  STOA_EXPECT_CONTAINS(text,
                       format("± {:.3f}", table["rows"][1]["values"]["eval.error"]["sd"].get<double>()));
  for (const char* outside : {"http:", "https:", "<script"})
    EXPECT_EQ(test::count_of(text, outside), 0U) << outside;
  EXPECT_EQ(test::count_of(text, dir_.path().string()), 0U);
}

TEST_F(ExperimentTest, OneSeedHasNoSpread) {
  write_with("[3, 4, 8]", "[3]");
  const Json table = run();
  EXPECT_TRUE(table["rows"][0]["values"]["eval.error"]["sd"].is_null());
  STOA_EXPECT_CONTAINS(page("widths.md"), "One run a row (seed 3), so the spread is unknown.");
  EXPECT_EQ(test::count_of(page("widths.md"), "±"), 0U);
}

TEST_F(ExperimentTest, AValueThatNoRunHasLeavesItsColumnEmpty) {
  write_with("train.units", "train.oops");
  const Json table = run();
  EXPECT_TRUE(table["rows"][0]["values"]["train.oops"]["mean"].is_null());
  STOA_EXPECT_CONTAINS(page("widths.md"), " | – |\n");
}

TEST_F(ExperimentTest, PagesGoWhereTheyAreAskedFor) {
  const ToyScope scope;
  run_experiment(file(), dir_ / "runs", dir_ / "pages/here", test::toy_catalog());
  EXPECT_TRUE(std::filesystem::exists(dir_ / "pages/here/widths.md"));
  EXPECT_TRUE(std::filesystem::exists(dir_ / "pages/here/widths.html"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "experiments/widths.md"));
}

}  // namespace
}  // namespace stoa
