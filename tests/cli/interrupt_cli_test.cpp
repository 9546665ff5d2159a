// Runs that are stopped, or written by two at once.
#include <gtest/gtest.h>

#include "stoa/base/files.h"
#include "support/program.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

const std::string kForever = "train.steps=100000000";

bool has_line(const fs::path& file) {
  return fs::exists(file) && read_file(file).find('\n') != std::string::npos;
}

// A training in `folder`/run that has logged its first line.
std::unique_ptr<RunningProgram> started(const TempDir& folder, const std::string& steps) {
  write_tiny_recipe(folder / "tiny.toml");
  auto program = std::make_unique<RunningProgram>(
      stoa({"train", "tiny.toml", "--out", "run", "--set", steps}), folder.path());
  EXPECT_TRUE(program->wait_until([&] { return has_line(folder / "run/metrics.jsonl"); }))
      << program->errors();
  return program;
}

int checkpoint_count(const fs::path& run) {
  int count = 0;
  std::error_code absent;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints", absent))
    count += entry.path().filename().string().starts_with("step-");
  return count;
}

TEST(Interrupt, CtrlCOnceLeavesACheckpointAndExits130) {
  const TempDir folder;
  const Ended ended = started(folder, kForever)->wait_after(SIGINT);
  EXPECT_EQ(ended.exit_code, 130);
  EXPECT_EQ(checkpoint_count(folder / "run"), 1);
  STOA_EXPECT_CONTAINS(ended.errors, "stopping after this step; Ctrl-C again stops at once\n");
  STOA_EXPECT_CONTAINS(ended.errors, "stoa train --resume run");
}

TEST(Interrupt, CtrlCTwiceEndsAtOnce) {
  const TempDir folder;
  const auto program = started(folder, kForever);
  program->signal(SIGINT);  // two of one kind could merge into one; SIGTERM counts alike
  const Ended ended = program->wait_after(SIGTERM);
  EXPECT_EQ(ended.exit_code, 130);
  EXPECT_EQ(checkpoint_count(folder / "run"), 0);
}

TEST(Interrupt, AResumedRunEqualsAnUninterruptedOne) {
  const TempDir folder;
  const std::string steps = "train.steps=500";
  EXPECT_EQ(started(folder, steps)->wait_after(SIGINT).exit_code, 130);
  const Ended resumed = run_stoa({"train", "--resume", "run", "--json"}, folder.path());
  ASSERT_EQ(resumed.exit_code, 0) << resumed.errors;
  EXPECT_EQ(json_of(resumed).at("steps"), 500);
  const Ended whole =
      run_stoa({"train", "tiny.toml", "--out", "whole", "--set", steps, "--json"}, folder.path());
  EXPECT_EQ(json_of(resumed).at("metrics"), json_of(whole).at("metrics"));
  const std::string model = "checkpoints/step-500/model.safetensors";
  EXPECT_TRUE(read_file(folder / "run" / model) == read_file(folder / "whole" / model));
}

TEST(Interrupt, TwoProcessesCannotWriteOneRun) {
  const TempDir folder;
  const auto first = started(folder, kForever);
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"train", "tiny.toml", "--out", "run", "--set", kForever},
        {"train", "--resume", "run"}}) {
    const Ended second = run_stoa(command, folder.path());
    EXPECT_EQ(second.exit_code, 2);
    STOA_EXPECT_CONTAINS(second.errors, "is in use by process");
    EXPECT_EQ(line_count(second.errors), 1) << second.errors;
  }
}

}  // namespace
}  // namespace stoa::test
