// The comparison of scaling rules that `stoa train` makes behind a click-through run, by the real program.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "support/program.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

const std::string kZipf = STOA_SOURCE_DIR "/recipes/cow_clip/zipf.toml";
const std::vector<std::string> kSmall = {"data.zipf.train_rows=4000", "data.zipf.test_rows=1000",
                                         "data.zipf.ids=500",         "train.epochs=1",
                                         "train.eval_every=0",        "runtime.precision=fp32"};

Ended train(const TempDir& folder, std::vector<std::string> arguments, const std::vector<std::string>& set) {
  arguments.insert(arguments.begin(), "train");
  for (const auto* list : {&kSmall, &set})
    for (const auto& assignment : *list) {
      arguments.push_back("--set");
      arguments.push_back(assignment);
    }
  return run_stoa(arguments, folder.path());
}

TEST(Comparison, TrainsEachFactorByEachRuleAsOneWouldByHand) {
  const TempDir folder;
  const Ended ended = train(folder, {kZipf, "--out", "run", "--json"},
                            {"comparison.factors=[4]", R"(comparison.rules=["none", "cowclip"])"});
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  const Json result = json_of(ended), &rows = result.at("comparison");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].at("metrics"), result.at("metrics"));
  EXPECT_EQ(rows[0].at("batch"), 128);
  EXPECT_EQ(rows[1].at("rule"), "none");
  EXPECT_EQ(rows[2].at("batch"), 512);

  // the square root of 4 for the dense rate, 4 for the L2, 8 steps an epoch
  const Ended cowclip = train(
      folder, {kZipf, "--out", "cowclip", "--json"},
      {"comparison.factors=[]", "train.batch_size=512", "optimizer.lr=2e-3", "embedding.l2=4e-4",
       "embedding.init_std=0.01", "schedule.warmup=7", "schedule.start=1e-8", R"(embedding.clip="cowclip")"});
  EXPECT_EQ(json_of(cowclip).at("metrics"), rows[2].at("metrics"));
  EXPECT_FALSE(json_of(cowclip).contains("comparison"));

  const Ended again = run_stoa({"train", "--resume", "run"}, folder.path());  // what is there stands
  ASSERT_EQ(again.exit_code, 0) << again.errors;
  STOA_EXPECT_CONTAINS(again.errors, "x4-none has done all its 8 steps already");
  STOA_EXPECT_CONTAINS(again.output, "128 (x1)");
  STOA_EXPECT_CONTAINS(again.output, "as the recipe says");
  STOA_EXPECT_CONTAINS(again.output, "512 (x4)");
}

TEST(Comparison, RefusesFactorsAndRulesThatMeanNothing) {
  const TempDir folder;
  const auto refused = [&](const std::string& set) {
    const Ended ended = train(folder, {kZipf, "--out", "run"}, {set});
    EXPECT_EQ(ended.exit_code, 2) << ended.errors;
    EXPECT_EQ(line_count(ended.errors), 1) << ended.errors;
    return ended.errors;
  };
  STOA_EXPECT_CONTAINS(refused("comparison.factors=[1]"), "`comparison.factors` has 1; whole numbers over 1");
  STOA_EXPECT_CONTAINS(refused("comparison.factors=[8, 8]"), "each once");
  STOA_EXPECT_CONTAINS(refused(R"(comparison.rules=["sqr"])"),
                       "`comparison.rules`: no scaling rule is called `sqr`");
  EXPECT_FALSE(std::filesystem::exists(folder / "run"));
}

TEST(MovieLens, IsPreparedOnTheWayAndAnewWhenItsFilesChange) {
  const TempDir folder;
  std::filesystem::create_directory(folder / "raw");
  write_file_atomically(folder / "raw/movies.csv",
                        "movieId,title,genres\n1,Toys (1995),Comedy\n2,Heat (1996),Drama|Crime\n");
  std::string ratings = "userId,movieId,rating,timestamp\n";
  ::setenv("XDG_CACHE_HOME", (folder / "cache").c_str(), 1);
  const auto samples_after = [&](const std::string& run, int more) {
    for (int i = 0; i < more; ++i)
      ratings += format("{},{},{}.0,96498270{}\n", i, 1 + i % 2, 1 + i % 5, i % 10);
    write_file_atomically(folder / "raw/ratings.csv", ratings);
    const Ended ended = run_stoa(
        {"train", STOA_SOURCE_DIR "/recipes/cow_clip/movielens.toml", "--out", run, "--set", "data.path=raw",
         "--set", "train.epochs=0", "--set", "train.steps=1", "--set", "comparison.factors=[]"},
        folder.path());
    EXPECT_EQ(ended.exit_code, 0) << ended.errors;
    return Json::parse(read_file(folder / run / "run.json")).at("train_samples").get<std::int64_t>();
  };
  const std::int64_t before = samples_after("first", 200);
  EXPECT_GT(samples_after("second", 200), before);
  ::unsetenv("XDG_CACHE_HOME");
}

}  // namespace
}  // namespace stoa::test
