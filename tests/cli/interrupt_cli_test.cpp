// Runs that are stopped, killed, or written by two at once.
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <thread>

#include "stoa/base/files.h"
#include "stoa/base/random.h"
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

// All of a training's state, and its log without what the clock says.
std::string result_of(const fs::path& run, const std::string& step) {
  std::string result;
  for (const char* file : {"model", "optimizer", "average"})
    result += read_file(run / "checkpoints" / step / (std::string(file) + ".safetensors"));
  std::istringstream lines(read_file(run / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    Json event = Json::parse(line);
    for (const char* timed : {"seconds", "samples_per_second"}) event.erase(timed);
    result += event.dump();
  }
  return result;
}

TEST(Killed, ARunKilledAtRandomMomentsEndsAsAnUninterruptedOne) {
  const TempDir folder;
  write_tiny_recipe(folder / "tiny.toml", R"([checkpoint]
every = 3
[data.augment]
mixup = 0.2
flip = true
)");
  const std::vector<std::string> start = {
      "train", "tiny.toml",          "--set", "train.steps=60",          "--set", "train.ema=0.9",
      "--set", "train.eval_every=7", "--set", "train.micro_batch_size=3"};
  const auto into = [&](const std::string& run) {
    auto command = start;
    command.insert(command.end(), {"--out", run});
    return command;
  };
  const auto began = std::chrono::steady_clock::now();
  ASSERT_EQ(run_stoa(into("whole"), folder.path()).exit_code, 0);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();

  RandomStream random(std::random_device{}());
  int killed = 0;
  Ended ended;
  for (int attempt = 0; attempt < 6; ++attempt) {
    const bool begun = fs::exists(folder / "killed/recipe.toml");
    RunningProgram program(
        stoa(begun ? std::vector<std::string>{"train", "--resume", "killed"} : into("killed")),
        folder.path());
    std::this_thread::sleep_for(std::chrono::duration<double>(random.uniform(0, 1.2 * seconds)));
    ended = program.wait_after(SIGKILL);
    killed += ended.exit_code == 128 + SIGKILL;
    ASSERT_TRUE(ended.exit_code == 0 || ended.exit_code == 128 + SIGKILL) << ended.errors;
  }
  RecordProperty("killed", killed);
  ended = run_stoa(fs::exists(folder / "killed/recipe.toml")
                       ? std::vector<std::string>{"train", "--resume", "killed"}
                       : into("killed"),
                   folder.path());
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  EXPECT_TRUE(result_of(folder / "killed", "step-60") == result_of(folder / "whole", "step-60"));
}

}  // namespace
}  // namespace stoa::test
