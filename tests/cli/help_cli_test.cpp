// What the program says of itself: help, usage errors, sizes, options.
#include <gtest/gtest.h>

#include "stoa/base/files.h"
#include "support/program.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

const std::vector<std::string> kCommands = {"train",      "eval",   "predict", "info",       "report",
                                            "experiment", "doctor", "options", "completion", "data",
                                            "export",     "launch", "plan"};

// A usage error: one line on standard error, nothing on standard output, exit code 2.
std::string refused(const std::vector<std::string>& arguments) {
  const Ended ended = run_stoa(arguments);
  EXPECT_EQ(ended.exit_code, 2) << ended.errors;
  EXPECT_EQ(ended.output, "");
  EXPECT_EQ(line_count(ended.errors), 1) << ended.errors;
  EXPECT_TRUE(ended.errors.starts_with("stoa: ")) << ended.errors;
  return ended.errors;
}

TEST(Help, NamesEveryCommand) {
  const Ended ended = run_stoa({"--help"});
  EXPECT_EQ(ended.exit_code, 0);
  for (const std::string& command : kCommands) STOA_EXPECT_CONTAINS(ended.output, "\n  " + command + " ");
}

TEST(Help, OfEveryCommandEndsWithAnExampleAndOffersJson) {
  for (const std::string& command : kCommands) {
    const Ended ended = run_stoa({command, "--help"});
    EXPECT_EQ(ended.exit_code, 0);
    STOA_EXPECT_CONTAINS(ended.output, "Usage: stoa " + command + " [OPTIONS]");
    STOA_EXPECT_CONTAINS(ended.output, "Example:\n  stoa " + command);
    STOA_EXPECT_CONTAINS(ended.output, "--json");
  }
}

TEST(Help, ExamplesNameFilesThatExist) {
  for (const std::string& command : kCommands) {
    std::istringstream words(run_stoa({command, "--help"}).output);
    for (std::string word; words >> word;)
      if (word.starts_with("recipes/") || word.starts_with("experiments/")) {
        EXPECT_TRUE(std::filesystem::exists(std::filesystem::path(STOA_SOURCE_DIR) / word)) << word;
      }
  }
}

TEST(Help, IsShownWhereNoCommandIsNamed) {
  const Ended ended = run_stoa({});
  EXPECT_EQ(ended.exit_code, 2);
  STOA_EXPECT_CONTAINS(ended.errors, "Commands:");
}

TEST(Help, VersionIsOneLine) {
  const Ended ended = run_stoa({"--version"});
  EXPECT_EQ(ended.exit_code, 0);
  EXPECT_TRUE(ended.output.starts_with("stoa 0.")) << ended.output;
  EXPECT_EQ(line_count(ended.output), 1);
}

TEST(Usage, AMisspeltCommandNamesTheNearest) {
  STOA_EXPECT_CONTAINS(refused({"trian", "x.toml"}), "unknown command `trian`; did you mean `train`?");
}

TEST(Usage, AMisspeltFlagNamesTheNearest) {
  STOA_EXPECT_CONTAINS(refused({"eval", "run", "--checkpont=best"}),
                       "unknown flag `--checkpont` of `stoa eval`; did you mean `--checkpoint`?");
  STOA_EXPECT_CONTAINS(refused({"--verison"}), "did you mean `--version`?");
}

TEST(Usage, AMisspeltFlagIsReportedBeforeWhatItCaused) {
  STOA_EXPECT_CONTAINS(refused({"report", "--uot", "x.html"}), "did you mean `--out`?");
}

TEST(Usage, AMissingArgumentIsNamed) {
  STOA_EXPECT_CONTAINS(refused({"eval"}), "RUN is required");
}

TEST(Usage, AnArgumentTooManyIsNamed) {
  STOA_EXPECT_CONTAINS(refused({"eval", "a", "b"}), "no further argument `b`");
}

TEST(Usage, ANumberIsNeededWhereOneIsNeeded) {
  STOA_EXPECT_CONTAINS(refused({"train", "--resume", "run", "--step", "last"}), "--step");
}

TEST(Usage, TrainNeedsARecipeOrARun) {
  STOA_EXPECT_CONTAINS(refused({"train"}), "--resume RUN");
}

TEST(Usage, AMissingRecipeNamesItsNeighbour) {
  const TempDir folder;
  write_tiny_recipe(folder / "widenet_b.toml");
  STOA_EXPECT_CONTAINS(refused({"info", (folder / "wide_net_b.toml").string()}), "widenet_b.toml`?");
}

TEST(Usage, AMissingExperimentNamesItsNeighbour) {
  const TempDir folder;
  write_tiny_recipe(folder / "table.toml");
  STOA_EXPECT_CONTAINS(refused({"experiment", (folder / "tabel.toml").string()}), "table.toml`?");
}

TEST(Usage, InfoSetsNothingWithoutARecipe) {
  STOA_EXPECT_CONTAINS(refused({"info", "--set", "a=b"}), "stoa info RECIPE --set");
}

TEST(Usage, AFolderIsNoRecipe) {
  const TempDir folder;
  STOA_EXPECT_CONTAINS(refused({"train", folder.path().string()}), "this is a folder");
}

TEST(Info, WithoutArgumentListsTheSystems) {
  const Ended ended = run_stoa({"info", "--json"});
  bool found = false;
  const Json systems = json_of(ended).at("systems");
  for (const Json& system : systems)
    found |= system.at("task") == "image_classification" && system.at("model") == "wide_net";
  EXPECT_TRUE(found) << ended.output;
}

TEST(Info, PartsAddUpToTheWhole) {
  const TempDir folder;
  write_tiny_recipe(folder / "tiny.toml");
  const Json info = json_of(run_stoa({"info", "tiny.toml", "--json"}, folder.path()));
  std::int64_t parameters = 0, macs = 0;
  for (const Json& part : info.at("parts")) {
    parameters += part.at("parameters").get<std::int64_t>();
    macs += part.at("macs").get<std::int64_t>();
  }
  EXPECT_EQ(info.at("parameters"), parameters);
  EXPECT_EQ(info.at("macs"), macs);
}

TEST(Info, MemoryOfAdamWIsFourTimesTheWeightsAndActivations) {
  const TempDir folder;
  write_tiny_recipe(folder / "tiny.toml");
  const Json info =
      json_of(run_stoa({"info", "tiny.toml", "--json", "--set", "train.micro_batch_size=2"}, folder.path()));
  const Json& memory = info.at("memory");
  EXPECT_EQ(memory.at("weights"), 4 * info.at("parameters").get<std::int64_t>());
  EXPECT_EQ(memory.at("gradients"), memory.at("weights"));
  EXPECT_EQ(memory.at("optimizer"), 2 * memory.at("weights").get<std::int64_t>());
  EXPECT_EQ(memory.at("batch_size"), 2);
}

TEST(Options, TheMarkdownPageIsTheOneInDocs) {
  const Ended ended = run_stoa({"options", "--markdown"});
  EXPECT_EQ(ended.exit_code, 0);
  EXPECT_TRUE(ended.output == read_file(STOA_SOURCE_DIR "/docs/options.md"))
      << "docs/options.md is out of date: build/release/stoa options --markdown > docs/options.md";
}

TEST(Options, EveryKeyHasTypeDefaultAndHelp) {
  const Json options = json_of(run_stoa({"options", "--json"})).at("options");
  EXPECT_GT(options.size(), 50u);
  for (const Json& option : options)
    for (const char* field : {"type", "default", "help"}) EXPECT_NE(option.at(field), "") << option;
}

TEST(Options, AMisspeltModelNamesTheNearest) {
  STOA_EXPECT_CONTAINS(refused({"options", "image_classification", "widenet"}), "did you mean `wide_net`?");
}

}  // namespace
}  // namespace stoa::test
