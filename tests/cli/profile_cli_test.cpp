// `stoa train --profile` by the real program.
#include <gtest/gtest.h>

#include <set>

#include "stoa/base/files.h"
#include "support/program.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

class Profiling : public ::testing::Test {
 protected:
  Profiling() { write_tiny_recipe(folder_ / "tiny.toml"); }
  Ended run(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"train", "tiny.toml"});
    return run_stoa(arguments, folder_.path());
  }

  TempDir folder_;
};

TEST_F(Profiling, TellsTimeByPartOfTheModel) {
  const Ended ended = run({"--out", "run", "--profile", "2", "--json"});
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  const Json profile = json_of(ended);
  EXPECT_EQ(profile.at("run"), "run");
  EXPECT_EQ(profile.at("steps"), 2);
  std::set<std::string> slow;
  for (const Json& part : profile.at("parts"))
    if (part.at("in_model") && part.at("forward_ms") > 0 && part.at("backward_ms") > 0)
      slow.insert(part.at("name"));
  for (const char* name : {"patch embedding", "layer norms", "attention", "experts", "router", "head"})
    EXPECT_TRUE(slow.contains(name)) << name;
}

TEST_F(Profiling, PrintsWhatItWrites) {
  const Ended ended = run({"--profile"});
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  const fs::path folder = folder_ / "runs/tiny-0-profile/profile";
  EXPECT_TRUE(ended.output.starts_with(read_file(folder / "profile.txt"))) << ended.output;
  STOA_EXPECT_CONTAINS(ended.output, "tiny: 5 steps of 8 samples");
  EXPECT_TRUE(fs::exists(folder / "trace.json") && fs::exists(folder / "profile.json"));
}

TEST_F(Profiling, SaysNothingElseWhenQuiet) {
  EXPECT_EQ(run({"--out", "run", "--profile", "--quiet"}).errors, "");
}

TEST_F(Profiling, ANumberIsNeeded) {
  const Ended ended = run({"--profile", "many"});
  EXPECT_EQ(ended.exit_code, 2);
  STOA_EXPECT_CONTAINS(ended.errors, "--profile takes a number of steps, not `many`");
}

TEST_F(Profiling, ARecipeIsNotTakenForTheNumber) {
  const Ended ended = run_stoa({"train", "--profile", "tiny.toml"}, folder_.path());
  EXPECT_EQ(ended.exit_code, 2);
  STOA_EXPECT_CONTAINS(ended.errors, "not `tiny.toml`; name the RECIPE before it");
}

TEST_F(Profiling, IsNotOfAResumedRun) {
  const Ended ended = run_stoa({"train", "--resume", "run", "--profile"}, folder_.path());
  EXPECT_EQ(ended.exit_code, 2);
  STOA_EXPECT_CONTAINS(ended.errors, "a profile is made of a new run");
}

}  // namespace
}  // namespace stoa::test
