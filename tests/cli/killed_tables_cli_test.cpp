// Click-through training as a real process, killed without warning: tables and network end as if it had not
// been.
#include <gtest/gtest.h>

#include "stoa/base/files.h"
#include "support/program.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

/// All of a training's state, and its log without what the clock says.
std::string result_of(const fs::path& run) {
  std::string result;
  for (const char* file : {"model", "optimizer", "sparse"})
    result += read_file(run / "checkpoints/step-600" / (std::string(file) + ".safetensors"));
  std::istringstream lines(read_file(run / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    Json event = Json::parse(line);
    for (const char* timed : {"seconds", "samples_per_second"}) event.erase(timed);
    result += event.dump();
  }
  return result;
}

class KilledTables : public ::testing::TestWithParam<std::string> {
 protected:
  std::vector<std::string> into(const std::string& run) const {
    std::vector<std::string> command = {"train", STOA_SOURCE_DIR "/recipes/cow_clip/zipf.toml", "--out", run};
    for (const std::string& set : std::vector<std::string>{
             "comparison.factors=[]", "train.epochs=0", "train.steps=600", "train.batch_size=64",
             "train.eval_every=150", "train.log_every=7", "data.zipf.ids=2000", "data.zipf.train_rows=20000",
             "data.zipf.test_rows=2000", "runtime.threads=1", "embedding.clip=\"cowclip\"",
             "checkpoint.every=20", "checkpoint.keep_last=99", "embedding.absent=\"" + GetParam() + "\""})
      command.insert(command.end(), {"--set", set});
    return command;
  }
  TempDir folder_;
};

TEST_P(KilledTables, EndAsThoseOfAnUninterruptedRun) {
  const Ended whole = run_stoa(into("whole"), folder_.path());
  ASSERT_EQ(whole.exit_code, 0) << whole.errors;
  auto command = into("killed");
  for (const int step : {40, 140, 240}) {
    RunningProgram program(stoa(command), folder_.path());
    ASSERT_TRUE(program.wait_until(
        [&] { return fs::exists(folder_ / "killed/checkpoints" / ("step-" + std::to_string(step))); }));
    ASSERT_EQ(program.wait_after(SIGKILL).exit_code, 128 + SIGKILL);
    command = {"train", "--resume", "killed"};
  }
  const Ended ended = run_stoa(command, folder_.path());
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  EXPECT_TRUE(result_of(folder_ / "killed") == result_of(folder_ / "whole"));
}

INSTANTIATE_TEST_SUITE_P(Modes, KilledTables, ::testing::Values("dense", "replay", "strided", "lazy"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace stoa::test
