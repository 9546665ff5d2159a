// From a recipe to a trained, evaluated, explained model, by the real program.
#include <gtest/gtest.h>

#include "stoa/base/files.h"
#include "support/image_files.h"
#include "support/program.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

// One trained run for all tests of this file.
class Trained : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TempDir>();
    write_tiny_recipe(*folder_ / "tiny.toml");
    trained_ =
        run_stoa({"train", "tiny.toml", "--out", "run", "--set", "train.ema=0.5", "--json"}, folder_->path());
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static Ended run(const std::vector<std::string>& arguments) { return run_stoa(arguments, folder_->path()); }

  static inline std::unique_ptr<TempDir> folder_;
  static inline Ended trained_;
};

TEST_F(Trained, TrainTellsRunStepsAndMetrics) {
  ASSERT_EQ(trained_.exit_code, 0) << trained_.errors;
  const Json result = json_of(trained_);
  EXPECT_EQ(result.at("run"), "run");
  EXPECT_EQ(result.at("steps"), 12);
  EXPECT_TRUE(result.at("metrics").at("accuracy").is_number());
}

TEST_F(Trained, LeavesAWholeRunFolder) {
  for (const char* file :
       {"recipe.toml", "run.json", "metrics.jsonl", "events.tfevents", "evaluation.json",
        "checkpoints/step-12/model.safetensors", "checkpoints/step-12/optimizer.safetensors",
        "checkpoints/step-12/average.safetensors", "checkpoints/step-12/state.json"})
    EXPECT_TRUE(fs::exists(*folder_ / "run" / file)) << file;
}

TEST_F(Trained, EvalMeasuresWhatTrainingMeasuredAtItsEnd) {
  const Ended ended = run({"eval", "run", "--json"});
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  const Json result = json_of(ended);
  EXPECT_EQ(result.at("metrics"), json_of(trained_).at("metrics"));
  EXPECT_EQ(result.at("step"), 12);
  EXPECT_GT(result.at("speed").at("samples_per_second"), 0);
}

TEST_F(Trained, EvalRefusesACheckpointThatIsNotThere) {
  const Ended ended = run({"eval", "run", "--checkpoint", "7"});
  EXPECT_EQ(ended.exit_code, 2);
  STOA_EXPECT_CONTAINS(ended.errors, "there are: 12");
}

TEST_F(Trained, EvalOfAnEarlierCheckpointLeavesEvaluationJsonAlone) {
  ASSERT_EQ(run({"train", "tiny.toml", "--out", "two", "--set", "checkpoint.every=6"}).exit_code, 0);
  const std::string before = read_file(*folder_ / "two/evaluation.json");
  const Ended early = run({"eval", "two", "--checkpoint", "6", "--json"});
  ASSERT_EQ(early.exit_code, 0) << early.errors;
  EXPECT_EQ(json_of(early).at("step"), 6);
  STOA_EXPECT_CONTAINS(early.errors, "two/evaluation.json stays as it is");
  EXPECT_TRUE(read_file(*folder_ / "two/evaluation.json") == before);
  fs::remove(*folder_ / "two/evaluation.json");
  ASSERT_EQ(run({"eval", "two"}).exit_code, 0);
  EXPECT_EQ(read_json(*folder_ / "two/evaluation.json").at("step"), 12);
}

TEST_F(Trained, EvalNeedsAPositiveCount) {
  const Ended ended = run({"eval", "run", "--save-examples", "none", "--count", "0"});
  EXPECT_EQ(ended.exit_code, 2);
  EXPECT_EQ(ended.errors, "stoa: --count is 0; at least 1 example is needed\n");
}

TEST_F(Trained, ARunThatIsMisspeltBringsTheNearestOne) {
  const Ended ended = run({"eval", "rnu"});
  EXPECT_EQ(ended.exit_code, 2);
  STOA_EXPECT_CONTAINS(ended.errors, "did you mean `run`?");
}

TEST_F(Trained, AFinishedRunWithOtherSettingsPointsToItsWeights) {
  const Ended ended = run({"train", "--resume", "run", "--set", "train.steps=20"});
  EXPECT_EQ(ended.exit_code, 2);
  STOA_EXPECT_CONTAINS(ended.errors, "stoa train RECIPE --set initial.weights=run");
}

TEST_F(Trained, PredictAnswersForEveryFile) {
  save(*folder_ / "one.png", plain_png(8, 200));
  save(*folder_ / "two.png", plain_png(20, 10));
  const Ended ended = run({"predict", "run", "one.png", "two.png", "--json"});
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  const Json predictions = json_of(ended).at("predictions");
  ASSERT_EQ(predictions.size(), 2u);
  EXPECT_EQ(predictions[1].at("file"), "two.png");
  EXPECT_EQ(predictions[0].at("top").size(), 4u);
}

TEST_F(Trained, PredictReadsTheExamplesThatEvalSaves) {
  ASSERT_EQ(run({"eval", "run", "--save-examples", "examples", "--count", "3"}).exit_code, 0);
  std::vector<std::string> command = {"predict", "run", "--json"};
  for (const auto& entry : fs::directory_iterator(*folder_ / "examples"))
    command.push_back(entry.path().string());
  EXPECT_EQ(json_of(run(command)).at("predictions").size(), 3u);
}

TEST_F(Trained, PredictRefusesADamagedPicture) {
  save(*folder_ / "cut.png", cut(plain_png(8, 200), 40));
  const Ended ended = run({"predict", "run", "cut.png"});
  EXPECT_EQ(ended.exit_code, 3);
  STOA_EXPECT_CONTAINS(ended.errors, "cut.png");
}

TEST_F(Trained, ABadPictureTakesNoOthersAnswerAway) {
  save(*folder_ / "good.png", plain_png(8, 200));
  save(*folder_ / "bad.png", cut(plain_png(8, 200), 40));
  const Ended ended = run({"predict", "run", "bad.png", "good.png", "missing.png", "--json"});
  EXPECT_EQ(ended.exit_code, 3);
  EXPECT_EQ(line_count(ended.errors), 1) << ended.errors;
  STOA_EXPECT_CONTAINS(ended.errors, "bad.png");
  STOA_EXPECT_CONTAINS(ended.errors, "missing.png");
  const Json predictions = json_of(ended).at("predictions");
  ASSERT_EQ(predictions.size(), 3u);
  EXPECT_TRUE(predictions[0].contains("error"));
  EXPECT_EQ(predictions[1].at("top").size(), 4u);
  EXPECT_EQ(predictions[2].at("file"), "missing.png");
}

TEST_F(Trained, AMissingPictureIsADataError) {
  const Ended ended = run({"predict", "run", "missing.png"});
  EXPECT_EQ(ended.exit_code, 3);
  EXPECT_EQ(ended.output, "");
  STOA_EXPECT_CONTAINS(ended.errors, "missing.png");
}

TEST_F(Trained, InfoOfARunKnowsItsCheckpoints) {
  const Json info = json_of(run({"info", "run", "--json"}));
  EXPECT_EQ(info.at("checkpoints"), Json::array({12}));
  EXPECT_EQ(info.at("memory").at("average"), info.at("memory").at("weights"));
}

TEST_F(Trained, ReportIsOnePage) {
  const Ended ended = run({"report", "run", "--out", "page.html", "--json"});
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  EXPECT_EQ(json_of(ended).at("report"), "page.html");
  STOA_EXPECT_CONTAINS(read_file(*folder_ / "page.html"), "</html>");
}

TEST_F(Trained, ReportPrintsTheTableAndWhereThePageIs) {
  const Ended ended = run({"report", "run"});
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  STOA_EXPECT_CONTAINS(ended.output, "Accuracy");
  EXPECT_TRUE(ended.output.ends_with("\nrun/report.html\n")) << ended.output;
}

TEST_F(Trained, QuietSaysNothing) {
  const Ended ended = run({"train", "tiny.toml", "--out", "quiet", "--quiet"});
  EXPECT_EQ(ended.exit_code, 0);
  EXPECT_EQ(ended.errors, "");
}

TEST_F(Trained, AlterationOfACheckpointIsRefusedByName) {
  fs::copy(*folder_ / "run", *folder_ / "altered", fs::copy_options::recursive);
  const fs::path file = *folder_ / "altered" / "checkpoints/step-12/model.safetensors";
  Bytes bytes = load(file);
  bytes.back() ^= 1;
  save(file, bytes);
  const Ended ended = run({"eval", "altered"});
  EXPECT_EQ(ended.exit_code, 3);
  STOA_EXPECT_CONTAINS(ended.errors, "model.safetensors");
}

TEST_F(Trained, AFolderOfAnotherRecipeIsRefused) {
  const Ended ended =
      run({"train", "tiny.toml", "--out", "run", "--set", "train.steps=13", "--set", "train.ema=0.5"});
  EXPECT_EQ(ended.exit_code, 2);
  STOA_EXPECT_CONTAINS(ended.errors, "`train.steps` is 12 in the run, 13 in the recipe");
}

TEST_F(Trained, AFolderThatIsTakenNamesResume) {
  const Ended ended = run({"train", "tiny.toml", "--out", "run", "--set", "train.ema=0.5"});
  EXPECT_EQ(ended.exit_code, 2);
  STOA_EXPECT_CONTAINS(ended.errors, "--resume run");
}

TEST_F(Trained, AFullDiskLeavesTheOldCheckpoint) {
  const std::vector<std::string> set = {"--set", "checkpoint.every=6"};
  ASSERT_EQ(run({"train", "tiny.toml", "--out", "disk", set[0], set[1]}).exit_code, 0);
  const fs::path steps = *folder_ / "disk" / "checkpoints";
  const std::string before = read_file(steps / "step-6/model.safetensors"),
                    after = read_file(steps / "step-12/model.safetensors");
  // files may not grow beyond 8 KiB, and the write fails instead of ending the process
  const std::string command =
      "trap '' XFSZ; ulimit -f 16; exec " STOA_PROGRAM " train --resume disk --step 6";
  const Ended full = RunningProgram({"sh", "-c", command}, folder_->path()).wait();
  EXPECT_EQ(full.exit_code, 1);
  STOA_EXPECT_CONTAINS(full.errors, "the checkpoint of step 6 is unharmed");
  EXPECT_TRUE(read_file(steps / "step-6/model.safetensors") == before);
  EXPECT_FALSE(fs::exists(steps / "step-12"));
  ASSERT_EQ(run({"train", "--resume", "disk"}).exit_code, 0);
  EXPECT_TRUE(read_file(steps / "step-12/model.safetensors") == after);
}

TEST_F(Trained, AResultThatCannotBeWrittenIsAnError) {
  const Ended ended =
      RunningProgram({"sh", "-c", "exec " STOA_PROGRAM " info tiny.toml --json > /dev/full"}, folder_->path())
          .wait();
  EXPECT_EQ(ended.exit_code, 1);
  STOA_EXPECT_CONTAINS(ended.errors, "standard output");
}

TEST_F(Trained, AnExperimentIsATableThatIsMadeOnce) {
  std::ofstream(*folder_ / "table.toml") << R"(title = "Tiny"
seeds = [0, 1]
[[row]]
name = "small"
recipe = "tiny.toml"
set = ["train.steps=4"]
[[row]]
name = "large"
recipe = "tiny.toml"
set = ["train.steps=6"]
[[column]]
value = "eval.accuracy"
heading = "accuracy"
scale = 100
digits = 1
)";
  const Ended first = run({"experiment", "table.toml", "--out", "table", "--json"});
  ASSERT_EQ(first.exit_code, 0) << first.errors;
  EXPECT_TRUE(json_of(first).is_object()) << first.output;
  EXPECT_TRUE(fs::exists(*folder_ / "table.md"));
  EXPECT_TRUE(fs::exists(*folder_ / "table.html"));
  const auto written = fs::last_write_time(*folder_ / "table/small-0/evaluation.json");
  const Ended second = run({"experiment", "table.toml", "--out", "table"});
  EXPECT_EQ(second.output, read_file(*folder_ / "table.md"));
  EXPECT_EQ(fs::last_write_time(*folder_ / "table/small-0/evaluation.json"), written);
}

}  // namespace
}  // namespace stoa::test
