// Runs in processes of their own that are killed or interrupted and go on.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <memory>
#include <thread>
#include <utility>

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
      test::everything({"train.steps=60", "checkpoint.every=5", "train.workers=2", "train.log_every=4"});
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
    if (std::exchange(first, false)) SelfProcess::ready();
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
  train_interrupted({.on_loss = [first = true](std::int64_t step) mutable {
    if (step == 16 && std::exchange(first, false)) std::raise(SIGINT);  // a second one would end it at once
  }});
}

TEST(Process, DISABLED_IsInterruptedInAnEvaluation) {
  train_interrupted({.on_evaluate = [] { std::raise(SIGINT); }});
}

class InterruptedTraining : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const ToyScope scope;
    whole_ = std::make_unique<test::TempDir>();
    test::start(*whole_ / "run", recipe());
  }
  static void TearDownTestSuite() { whole_.reset(); }

  void expect_same_end() const { test::expect_same_end(run, *whole_ / "run", kSteps); }
  std::int64_t newest() const { return CheckpointStore(run / "checkpoints").steps().back(); }

  ToyScope quiet;
  test::TempDir dir;
  const std::filesystem::path run = dir / "run";

 private:
  static inline std::unique_ptr<test::TempDir> whole_;  // with a run that nothing disturbed
};

TEST_F(InterruptedTraining, KilledAtRandomMomentsEndsTheSameToTheLastBit) {
  RandomStream random(
      static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()));
  int kills = 0;
  for (int round = 0; round < 30 && kills < 9; ++round) {
    SelfProcess process("Process.DISABLED_Trains", run.string());
    const bool training = process.wait_until_ready();
    if (!training && kills > 0) break;  // no step was left to do
    if (training) std::this_thread::sleep_for(std::chrono::microseconds(random.integer(0, 120000)));
    process.kill();
    if (process.wait() == -SIGKILL) ++kills;
    if (kills == 0) fs::remove_all(run);  // it came to its end too soon: once more
  }
  ASSERT_GT(kills, 0);
  SelfProcess last("Process.DISABLED_Trains", run.string());
  EXPECT_EQ(last.wait(), 0);
  expect_same_end();
}

TEST_F(InterruptedTraining, InAStepLosesNothing) {
  SelfProcess process("Process.DISABLED_IsInterruptedInAStep", run.string());
  EXPECT_EQ(process.wait(), 130);
  EXPECT_EQ(newest(), 17);
  test::resume(run);
  expect_same_end();
}

TEST_F(InterruptedTraining, InAnEvaluationLosesNothing) {
  SelfProcess process("Process.DISABLED_IsInterruptedInAnEvaluation", run.string());
  EXPECT_EQ(process.wait(), 130);
  EXPECT_EQ(newest(), 4);
  test::resume(run);
  expect_same_end();
}

}  // namespace
}  // namespace stoa
