#include "stoa/train/run_record.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/fake_run.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa {
namespace {

class RunRecordTest : public ::testing::Test {
 protected:
  void write_log(const std::string& lines) { write_file_atomically(dir_ / "metrics.jsonl", lines); }
  void SetUp() override { test::write_fake_run(dir_.path()); }
  test::TempDir dir_;
};

TEST_F(RunRecordTest, HasTheSizesOfTheModelAndTheEvaluation) {
  const RunRecord run = read_run(dir_.path());
  EXPECT_EQ(run.title, "WideNet, 4 experts");
  EXPECT_EQ(run.value("parameters"), 40942);
  EXPECT_EQ(run.value("macs"), 6992704);
  EXPECT_EQ(run.value("eval.accuracy"), 0.871);
  EXPECT_EQ(run.value("speed.latency_ms"), 1.84);
  EXPECT_EQ(run.value("steps"), 480);
}

TEST_F(RunRecordTest, FirstAndBestAreOfAllEvaluations) {
  write_log(R"({"step":1,"kind":"eval","accuracy":0.5,"loss":3}
{"step":2,"kind":"eval","accuracy":0.9,"loss":2}
{"step":3,"kind":"eval","accuracy":0.7,"loss":4}
)");
  RunRecord run = read_run(dir_.path());
  EXPECT_EQ(run.value("first.accuracy"), 0.5);
  EXPECT_EQ(run.value("best.accuracy"), 0.9);
  run.info["higher_is_better"] = false;
  EXPECT_EQ(run.value("best.loss"), 2);
  EXPECT_FALSE(run.value("best.nothing"));
}

TEST_F(RunRecordTest, TrainingValuesAreMeansOverLinesAndElements) {
  write_log(
      R"({"step":1,"kind":"train","loss":3,"seconds":1,"statistics":{"router.load":[[0.1,0.3],[0.2,0.2]]}}
{"step":1,"kind":"eval","loss":100}
{"step":2,"kind":"train","loss":1,"seconds":2,"statistics":{"router.load":[[0.5,0.7],[null,0.6]]}}
)");
  const RunRecord run = read_run(dir_.path());
  EXPECT_EQ(run.value("train.loss"), 2);
  EXPECT_EQ(run.value("last.loss"), 1);
  EXPECT_EQ(run.value("seconds"), 2);
  EXPECT_NEAR(*run.value("train.router.load"), (0.1 + 0.3 + 0.2 + 0.2 + 0.5 + 0.7 + 0.6) / 7, 1e-15);
  EXPECT_NEAR(*run.value("last.router.load"), 0.6, 1e-15);
}

TEST_F(RunRecordTest, WhatARunDoesNotHaveIsAbsent) {
  write_log("");
  const RunRecord run = read_run(dir_.path());
  for (const char* name : {"eval.f1", "train.loss", "last.loss", "seconds", "weight", "model", "eval.", "."})
    EXPECT_EQ(run.value(name), std::nullopt) << name;
}

TEST_F(RunRecordTest, KeepsTheExhibits) {
  const RunRecord run = read_run(dir_.path());
  ASSERT_EQ(run.exhibits.size(), 5U);
  EXPECT_EQ(run.exhibits[0].title, "Confusion matrix");
}

TEST_F(RunRecordTest, NamesTheFileOfABrokenExhibit) {
  write_file_atomically(dir_ / "evaluation.json", R"({"exhibits":[{"title":"map"}]})");
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { read_run(dir_.path()); }),
                       "evaluation.json: exhibit `map`");
}

TEST(RunRecord, RefusesAFolderThatIsNoRun) {
  const test::TempDir empty;
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] { read_run(empty.path()); }),
                       "is not the folder of a run");
}

}  // namespace
}  // namespace stoa
