// Runs in processes of their own that are killed or interrupted and go on.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "stoa/base/errors.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/random.h"
#include "stoa/train/trainer.h"
#include "support/self_process.h"
#include "support/temp_dir.h"
#include "support/toy_runs.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using test::SelfProcess;
using test::ToyScope;

constexpr std::int64_t kSteps = 60;

std::vector<std::string> recipe() {
  auto set =
      test::everything({"train.steps=60", "checkpoint.every=3", "train.workers=2", "train.log_every=4"});
  set.emplace_back("checkpoint.keep_last=2");
  return set;
}

void start_or_go_on(const fs::path& run) {
  if (fs::exists(run / "recipe.toml"))
    test::resume(run);
  else
    test::start(run, recipe());
}

// Killed from outside: says when its first step begins, so that kills hit the steps and not the start of the
// program.
TEST(Process, DISABLED_Trains) {
  const ToyScope scope({.on_loss = [first = true](std::int64_t) mutable {
    if (first) SelfProcess::ready();
    first = false;
  }});
  start_or_go_on(SelfProcess::argument());
}

/// Ends like the command does when it is interrupted.
void train_interrupted(const test::ToyHooks& hooks) {
  const ToyScope scope(hooks);
  install_interrupt_handler();
  try {
    start_or_go_on(SelfProcess::argument());
  } catch (const Interrupted& error) {
    const bool tells_how = std::string(error.what()).find("stoa train --resume") != std::string::npos;
    std::_Exit(tells_how ? error.exit_code() : 1);
  }
}

TEST(Process, DISABLED_IsInterruptedInAStep) {
  train_interrupted({.on_loss = [](std::int64_t step) {
    if (step == 16) std::raise(SIGINT);
  }});
}

TEST(Process, DISABLED_IsInterruptedInAnEvaluation) {
  train_interrupted({.on_loss = {}, .on_evaluate = [] { std::raise(SIGINT); }});
}

TEST(Training, KilledAtRandomMomentsEndsTheSameToTheLastBit) {
  const ToyScope scope;
  const test::TempDir dir;
  test::start(dir / "whole", recipe());
  const fs::path run = dir / "run";
  RandomStream random(
      static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()));
  int kills = 0;
  for (int round = 0; round < 12; ++round) {
    SelfProcess process("Process.DISABLED_Trains", run.string());
    if (!process.wait_until_ready()) break;  // nothing was left to do
    std::this_thread::sleep_for(std::chrono::microseconds(random.integer(0, 40000)));
    process.kill();
    if (process.wait() == -SIGKILL) ++kills;
  }
  SelfProcess last("Process.DISABLED_Trains", run.string());
  EXPECT_EQ(last.wait(), 0);
  EXPECT_GE(kills, 1);
  test::expect_same_end(run, dir / "whole", kSteps);
}

TEST(Training, InterruptedInAStepLosesNothing) {
  const ToyScope scope;
  const test::TempDir dir;
  test::start(dir / "whole", recipe());
  SelfProcess process("Process.DISABLED_IsInterruptedInAStep", (dir / "run").string());
  EXPECT_EQ(process.wait(), 130);
  EXPECT_EQ(CheckpointStore(dir / "run/checkpoints").steps().back(), 17);
  test::resume(dir / "run");
  test::expect_same_end(dir / "run", dir / "whole", kSteps);
}

TEST(Training, InterruptedInAnEvaluationLosesNothing) {
  const ToyScope scope;
  const test::TempDir dir;
  test::start(dir / "whole", recipe());
  SelfProcess process("Process.DISABLED_IsInterruptedInAnEvaluation", (dir / "run").string());
  EXPECT_EQ(process.wait(), 130);
  EXPECT_EQ(CheckpointStore(dir / "run/checkpoints").steps().back(), 4);
  test::resume(dir / "run");
  test::expect_same_end(dir / "run", dir / "whole", kSteps);
}

}  // namespace
}  // namespace stoa
