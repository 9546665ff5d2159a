// stoa export, then eval and predict from what it made.
#include <gtest/gtest.h>

#include "stoa/base/files.h"
#include "stoa/base/json.h"
#include "support/program.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

class Export : public ::testing::Test {
 protected:
  static Ended stoa(const std::vector<std::string>& arguments, const fs::path& folder) {
    std::vector<std::string> command = {STOA_PROGRAM};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return RunningProgram(command, folder).wait();
  }
  void SetUp() override {
    const auto ended = stoa({"train", STOA_SOURCE_DIR "/recipes/cow_clip/zipf.toml",
                             "--out", "run",
                             "--set", "comparison.factors=[]",
                             "--set", "train.steps=200",
                             "--set", "train.epochs=0",
                             "--set", "data.zipf.ids=200",
                             "--set", "data.zipf.train_rows=20000",
                             "--set", "data.zipf.test_rows=5000",
                             "--set", "train.eval_every=0",
                             "--set", "runtime.threads=1"},
                            dir_.path());
    ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  }
  TempDir dir_;
};

TEST_F(Export, KeepsWeightsAloneAndSaysWhatItCosts) {
  for (const std::string type : {"fp32", "fp16", "int8"}) {
    const auto ended = stoa({"export", "run", "--out", type, "--tables", type, "--json"}, dir_.path());
    ASSERT_EQ(ended.exit_code, 0) << ended.errors;
    const Json json = Json::parse(ended.output);
    const double before = json["before"]["auc"], after = json["after"]["auc"];
    EXPECT_NEAR(before, after, type == "fp32" ? 1e-9 : 2e-3);
    const auto again = stoa({"eval", type, "--json"}, dir_.path());
    ASSERT_EQ(again.exit_code, 0) << again.errors;
    EXPECT_NEAR(Json::parse(again.output)["metrics"]["auc"].get<double>(), after, 1e-9);
  }
  const auto size = [&](const std::string& folder) {
    return fs::file_size(dir_.path() / folder / "checkpoints/step-200/sparse.safetensors");
  };
  EXPECT_LT(size("fp32"), size("run") / 2);
  EXPECT_LT(size("fp16"), size("fp32") * 6 / 10);
  EXPECT_LT(size("int8"), size("fp16"));
}

TEST_F(Export, ScoresRowsOfTheStandardInputAndTellsItsLatency) {
  const auto answered = RunningProgram({"sh", "-c",
                                        "echo '{\"ids\": [1, 2, 3, 4, 5, 6, 7, 8]}' | exec " STOA_PROGRAM
                                        " predict run - --latency 1,1000 --checkpoint last"},
                                       dir_.path())
                            .wait();
  ASSERT_EQ(answered.exit_code, 0) << answered.errors;
  EXPECT_GT(std::stod(answered.output), 0);
  STOA_EXPECT_CONTAINS(answered.output, "p99 (ms)");
  const auto timed = stoa({"predict", "run", "--latency", "1,1000", "--json"}, dir_.path());
  const Json latency = Json::parse(timed.output)["latency"];
  ASSERT_EQ(latency.size(), 2U);
  EXPECT_EQ(latency[1]["samples"], 1000);
  for (const auto& line : latency) EXPECT_LE(line["p50_ms"].get<double>(), line["p99_ms"].get<double>());
}

TEST_F(Export, AnswersForRowsAndCannotBeTrained) {
  ASSERT_EQ(
      stoa({"export", "run", "--out", "out", "--tables", "int8", "--no-measure"}, dir_.path()).exit_code, 0);
  write_file_atomically(dir_.path() / "rows.jsonl", "{\"ids\": [1, 2, 3, 4, 5, 6, 7, 8]}\n");
  const auto answered = stoa({"predict", "out", "rows.jsonl"}, dir_.path());
  EXPECT_EQ(answered.exit_code, 0) << answered.errors;
  EXPECT_GT(std::stod(answered.output), 0);
  const auto refused = stoa({"train", "--resume", "out"}, dir_.path());
  EXPECT_EQ(refused.exit_code, 2);
  STOA_EXPECT_CONTAINS(refused.errors, "was exported");
  const auto taken = stoa({"export", "run", "--out", "out", "--no-measure"}, dir_.path());
  EXPECT_EQ(taken.exit_code, 2);
}

}  // namespace
}  // namespace stoa::test
