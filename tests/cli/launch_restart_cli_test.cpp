// Trainings whose ranks die in steps drawn by chance and that a launcher starts anew.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <sstream>
#include <utility>

#include "stoa/base/format.h"
#include "stoa/base/random.h"
#include "support/drawn_seed.h"
#include "support/program.h"
#include "support/thrown.h"
#include "support/torchrun.h"
#include "support/toy_runs.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

using Words = std::vector<std::string>;

constexpr int kRanks = 2, kSteps = 60;

/// Which rank dies in which step, and in which of the step's two passes.
struct Death {
  std::int64_t rank = 0, step = 0, pass = 0;
};

/// One for each time that the ranks are started but the last. None is before the one of the time before,
/// since training goes on from a checkpoint that may be of that very step.
std::vector<Death> draw_deaths(int count) {
  RandomStream random(drawn_seed());
  std::vector<Death> deaths;
  for (int i = 0; i < count; ++i) {
    const auto first = deaths.empty() ? 0 : deaths.back().step;
    deaths.push_back({random.integer(0, kRanks), random.integer(first, kSteps), random.integer(0, 2)});
    std::cout << format("start {}: rank {} dies in pass {} of step {}\n", i, deaths.back().rank,
                        deaths.back().pass, deaths.back().step);
  }
  return deaths;
}

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// Makes this process end itself in the step and pass that STOA_TEST_DEATHS, "rank step pass rank step pass
/// ...", names for this time that it is started. No clock decides it.
void die_as_told(ToyHooks& hooks) {
  std::istringstream deaths(variable("STOA_TEST_DEATHS"));
  Death death;
  for (int start = std::stoi(variable("TORCHELASTIC_RESTART_COUNT")); start >= 0; --start)
    if (!(deaths >> death.rank >> death.step >> death.pass)) return;
  if (death.rank != std::stoi(variable("RANK"))) return;
  hooks.on_loss = [step = death.step, left = death.pass](std::int64_t now) mutable {
    if (now == step && left-- == 0) ::kill(::getpid(), SIGKILL);
  };
}

// what launchers start: this program with this test alone
TEST(Process, DISABLED_Trains) {
  ToyHooks hooks;
  die_as_told(hooks);
  const ToyScope scope(std::move(hooks));
  const fs::path run = variable("STOA_TEST_RUN");
  if (fs::exists(run / "recipe.toml"))
    resume(run);
  else
    start(run, everything({"train.steps=60", "train.batch_size=18", "train.log_every=4", "train.workers=2",
                           "checkpoint.every=7"}));
}

Words this_program() {
  return {fs::read_symlink("/proc/self/exe").string(), "--gtest_filter=Process.DISABLED_Trains",
          "--gtest_also_run_disabled_tests", "--gtest_color=no"};
}

Words stoa_launch(int restarts) {
  auto words = stoa({"launch", "-n", format("{}", kRanks), "--restarts", format("{}", restarts)});
  const auto program = this_program();
  words.insert(words.end(), {"--program", program[0], "--"});
  words.insert(words.end(), program.begin() + 1, program.end());
  return words;
}

Ended train(const Words& command, const fs::path& run, const std::vector<Death>& deaths) {
  std::string told = "STOA_TEST_DEATHS=";
  for (const auto& [rank, step, pass] : deaths) told += format("{} {} {} ", rank, step, pass);
  auto variables = torchrun_environment();
  variables.insert(variables.end(), {told, "STOA_TEST_RUN=" + run.string(), "OMP_NUM_THREADS=1"});
  return RunningProgram(command, fs::temp_directory_path(), variables).wait();
}

class Restarts : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    whole_ = std::make_unique<TempDir>();
    const auto ended = train(stoa_launch(0), *whole_ / "run", {});
    ASSERT_EQ(ended.exit_code, 0) << ended.output << ended.errors;
  }
  static void TearDownTestSuite() { whole_.reset(); }

  void expect_undisturbed_end() const { expect_same_end(run, *whole_ / "run", kSteps); }

  const TempDir folder;
  const fs::path run = folder / "run";

 private:
  static inline std::unique_ptr<TempDir> whole_;  // with a run that nothing disturbed
};

TEST_F(Restarts, DeathsInRandomStepsUnderStoaLaunchChangeNothingInTheEnd) {
  const auto deaths = draw_deaths(2);
  const auto ended = train(stoa_launch(2), run, deaths);
  ASSERT_EQ(ended.exit_code, 0) << ended.output << ended.errors;
  for (std::size_t i = 0; i < deaths.size(); ++i)
    STOA_EXPECT_CONTAINS(
        ended.errors,
        format("rank {} was ended by signal 9 (Killed); starting all ranks anew, restart {} of 2\n",
               deaths[i].rank, i + 1));
  expect_undisturbed_end();
}

TEST_F(Restarts, DeathsInRandomStepsUnderTorchrunChangeNothingInTheEnd) {
  const auto deaths = draw_deaths(1);
  const auto ended = train(torchrun(kRanks, 1, this_program()), run, deaths);
  STOA_SKIP_WITHOUT_TORCHRUN(ended);
  ASSERT_EQ(ended.exit_code, 0) << ended.output << ended.errors;
  for (const auto& death : deaths)
    STOA_EXPECT_CONTAINS(ended.errors, format("failed (exitcode: -9) local_rank: {} ", death.rank));
  expect_undisturbed_end();
}

}  // namespace
}  // namespace stoa::test
