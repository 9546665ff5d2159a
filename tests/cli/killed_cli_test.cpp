// A real process, killed without warning again and again.
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <thread>

#include "stoa/base/files.h"
#include "stoa/base/random.h"
#include "support/program.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

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
  const auto start_or_go_on = [&] {
    return fs::exists(folder / "killed/recipe.toml") ? std::vector<std::string>{"train", "--resume", "killed"}
                                                     : into("killed");
  };
  int kills = 0;  // that landed in a run under way
  Ended ended;
  for (int attempt = 0; attempt < 30 && kills < 4; ++attempt) {
    RunningProgram program(stoa(start_or_go_on()), folder.path());
    std::this_thread::sleep_for(std::chrono::duration<double>(random.uniform(0, 1.2 * seconds)));
    ended = program.wait_after(SIGKILL);
    ASSERT_TRUE(ended.exit_code == 0 || ended.exit_code == 128 + SIGKILL) << ended.errors;
    const bool begun = fs::exists(folder / "killed/recipe.toml");
    if (ended.exit_code != 0)
      kills += begun;
    else if (kills == 0)
      fs::remove_all(folder / "killed");  // it came to its end too soon: once more
    else
      break;
  }
  ASSERT_GT(kills, 0);
  ended = run_stoa(start_or_go_on(), folder.path());
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  EXPECT_TRUE(result_of(folder / "killed", "step-60") == result_of(folder / "whole", "step-60"));
}

}  // namespace
}  // namespace stoa::test
