// Runs that several processes make together, as a user starts them.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>

#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/random.h"
#include "stoa/dist/free_port.h"
#include "stoa/train/events.h"
#include "support/drawn_seed.h"
#include "support/process_state.h"
#include "support/program.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

/// A causal model of bytes of a made-up text.
void write_recipe(const fs::path& folder) {
  std::string text;
  for (int i = 0; i < 900; ++i) text += format("{} and {}, then {}.\n", i % 17, i * 7 % 23, i * i % 29);
  write_file_atomically(folder / "text.txt", text);
  write_file_atomically(folder / "bytes.toml", format(R"(title = "bytes"
[task]
name = "causal_text"
[data]
train = ["{0}"]
eval = ["{0}"]
tokenizer = "bytes"
sentences = "whole"
length = 16
[model]
name = "text_transformer"
preset = "gpt2"
dim = 16
depth = 1
heads = 2
mlp_dim = 32
positions = 16
dropout = 0.1
attention_dropout = 0.1
[train]
steps = 600
batch_size = 8
workers = 1
[checkpoint]
every = 50
[runtime]
threads = 1
precision = "fp32"
)",
                                                      (folder / "text.txt").string()));
}

Ended train(const TempDir& folder, const std::string& out, std::vector<std::string> launch,
            const std::vector<std::string>& more = {}) {
  launch.insert(launch.end(), {"train", "bytes.toml", "--out", out, "-q"});
  launch.insert(launch.end(), more.begin(), more.end());
  return run_stoa(launch, folder.path());
}

double loss_of(const Ended& ended) {
  return json_of(ended).at("metrics").at("loss").get<double>();
}

/// The process of a rank that a launcher started.
int process_of(const fs::path& out, const std::string& rank) {
  for (const auto& entry : fs::directory_iterator("/proc")) {
    std::ifstream variables(entry.path() / "environ"), words(entry.path() / "cmdline");
    const std::string seen((std::istreambuf_iterator<char>(variables)), {});
    const std::string command((std::istreambuf_iterator<char>(words)), {});
    const bool is_rank = seen.find(std::string(1, '\0') + "RANK=" + rank + '\0') != std::string::npos;
    if (is_rank && command.find(out.string()) != std::string::npos) return std::stoi(entry.path().filename());
  }
  return 0;
}

/// Two processes with the variables of `srun -n 2` on one machine, and none of a launcher's; the end of rank
/// 0.
Ended train_as_slurm_tasks(const TempDir& folder, const std::string& out,
                           const std::vector<std::string>& more) {
  auto command = stoa({"train", "bytes.toml", "--out", out, "-q"});
  command.insert(command.end(), more.begin(), more.end());
  const std::string port = std::to_string(dist::free_port());
  std::vector<std::unique_ptr<RunningProgram>> tasks;
  for (const std::string task : {"0", "1"})
    tasks.push_back(std::make_unique<RunningProgram>(
        command, folder.path(),
        std::vector<std::string>{"SLURM_PROCID=" + task, "SLURM_LOCALID=" + task, "SLURM_NTASKS=2",
                                 "SLURM_NODEID=0", "SLURM_TASKS_PER_NODE=2", "SLURM_JOB_ID=17",
                                 "SLURM_JOB_NODELIST=localhost", "MASTER_PORT=" + port}));
  EXPECT_EQ(tasks[1]->wait().exit_code, 0);
  return tasks[0]->wait();
}

TEST(LaunchTrain, EndsWhereOneProcessDoesHoweverTheWorkIsShared) {
  const TempDir folder;
  write_recipe(folder.path());
  const auto alone = train(folder, "one", {}, {"--json", "--set", "train.steps=30"});
  ASSERT_EQ(alone.exit_code, 0) << alone.errors;
  for (const std::string split : {"parallel.data=2", "parallel.sequence=2"}) {
    const auto together = train(folder, split, {"launch", "-n", "2", "--"},
                                {"--json", "--set", "train.steps=30", "--set", split});
    ASSERT_EQ(together.exit_code, 0) << together.errors;
    EXPECT_NEAR(loss_of(together), loss_of(alone), 1e-4) << split;
    const auto read = run_stoa({"eval", split, "--json", "-q"}, folder.path());  // by one process
    ASSERT_EQ(read.exit_code, 0) << read.errors;
    EXPECT_NEAR(loss_of(read), loss_of(together), 1e-5) << split;
  }
  const auto by_slurm = train_as_slurm_tasks(folder, "slurm", {"--json", "--set", "train.steps=30"});
  ASSERT_EQ(by_slurm.exit_code, 0) << by_slurm.errors;
  EXPECT_NEAR(loss_of(by_slurm), loss_of(alone), 1e-4);
}

/// Trains with two ranks, which `command` starts, and kills one by chance when a step drawn by chance is
/// logged. (launch_restart_cli_test.cpp has deaths in exactly the step drawn.)
Ended train_and_kill(const std::vector<std::string>& command, const fs::path& folder, const fs::path& out) {
  RandomStream random(drawn_seed());
  const auto rank = random.integer(0, 2), step = random.integer(1, 500);
  std::cout << format("rank {} is killed when step {} is logged\n", rank, step);
  RunningProgram launcher(command, folder);
  const bool reached = launcher.wait_until([&] {
    const auto lines = read_events(out);
    return !lines.empty() && lines.back().at("step").get<std::int64_t>() >= step;
  });
  const int victim = process_of(out, std::to_string(rank));
  EXPECT_TRUE(reached && victim > 0 && ::kill(victim, SIGKILL) == 0);
  return launcher.wait();
}

void expect_same_checkpoint(const fs::path& a, const fs::path& b) {
  for (const char* file : {"model.safetensors", "optimizer.safetensors"})
    EXPECT_EQ(read_file(a / "checkpoints/step-600" / file), read_file(b / "checkpoints/step-600" / file))
        << file;
}

/// A run of 600 steps by two ranks that is disturbed, beside one that is not.
class Disturbed : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TempDir>();
    write_recipe(folder_->path());
    ASSERT_EQ(
        train(*folder_, "undisturbed", {"launch", "-n", "2", "--"}, {"--set", "train.log_every=1"}).exit_code,
        0);
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static const TempDir& folder() { return *folder_; }
  /// `stoa launch` of a run, with the flags of the launch.
  static std::vector<std::string> launch_of(const fs::path& run, std::vector<std::string> flags = {}) {
    flags.insert(flags.begin(), {"launch", "-n", "2"});
    flags.insert(flags.end(), {"--", "train", "bytes.toml", "--out", run.string(), "--or-resume", "-q",
                               "--set", "train.log_every=1"});
    return stoa(flags);
  }
  /// Runs until a few steps are logged.
  static std::unique_ptr<RunningProgram> begun(const fs::path& run, const std::vector<std::string>& flags) {
    auto launcher = std::make_unique<RunningProgram>(launch_of(run, flags), folder_->path());
    EXPECT_TRUE(launcher->wait_until([&] { return read_events(run).size() > 3; })) << launcher->errors();
    return launcher;
  }

  static void expect_interrupted(const Ended& ended, const fs::path& run) {
    EXPECT_EQ(ended.exit_code, 130) << ended.errors;
    STOA_EXPECT_CONTAINS(ended.errors, "go on with: stoa train --resume " + run.string());
    EXPECT_EQ(ended.errors.find("starting all ranks anew"), std::string::npos) << ended.errors;
    int checkpoints = 0;
    for (const auto& entry : fs::directory_iterator(run / "checkpoints"))
      checkpoints += entry.path().filename().string().starts_with("step-");
    EXPECT_GE(checkpoints, 1);
    EXPECT_FALSE(fs::exists(run / "checkpoints/step-600"));
    const auto resumed = RunningProgram(launch_of(run), folder_->path()).wait();
    ASSERT_EQ(resumed.exit_code, 0) << resumed.errors;
    expect_same_checkpoint(run, *folder_ / "undisturbed");
  }

 private:
  static inline std::unique_ptr<TempDir> folder_;
};

TEST_F(Disturbed, ARankThatIsKilledChangesNothingInTheEnd) {
  const auto killed = folder() / "killed";
  const auto ended = train_and_kill(launch_of(killed, {"--restarts", "2"}), folder().path(), killed);
  EXPECT_EQ(ended.exit_code, 0) << ended.errors;
  STOA_EXPECT_CONTAINS(ended.errors, "restart 1 of 2");
  expect_same_checkpoint(killed, folder() / "undisturbed");
}

TEST_F(Disturbed, CtrlCAtTheLauncherStopsAllRanksAfterAStepAndLosesNothing) {
  const auto run = folder() / "launcher";
  expect_interrupted(begun(run, {"--restarts", "2"})->wait_after(SIGINT), run);
}

TEST_F(Disturbed, CtrlCAtOneRankStopsAllOfThemAfterAStepAndLosesNothing) {
  for (const std::string rank : {"0", "1"}) {
    const auto run = folder() / ("rank" + rank);
    const auto launcher = begun(run, {"--restarts", "2"});
    const int process = process_of(run, rank);
    ASSERT_TRUE(process > 0 && ::kill(process, SIGINT) == 0);
    expect_interrupted(launcher->wait(), run);
  }
}

TEST(LaunchTrain, AnotherRecipeIsRefusedByRank0WithoutARestart) {
  const TempDir folder;
  write_recipe(folder.path());
  ASSERT_EQ(train(folder, "run", {"launch", "-n", "2", "--"}, {"--set", "train.steps=2"}).exit_code, 0);
  for (int i = 0; i < 3; ++i) {  // which rank ends first is a matter of chance
    const auto ended = train(folder, "run", {"launch", "-n", "2", "--restarts", "2", "--"},
                             {"--or-resume", "--set", "train.steps=3"});
    EXPECT_EQ(ended.exit_code, 2) << ended.errors;
    STOA_EXPECT_CONTAINS(ended.errors, "`train.steps` is 2 in the run, 3 in the recipe");
    STOA_EXPECT_CONTAINS(ended.errors, "stoa: rank 0 ended with exit code 2");
    EXPECT_EQ(ended.errors.find("starting all ranks anew"), std::string::npos) << ended.errors;
  }
}

TEST(LaunchTrain, OneProcessPredictsFromARunOfTwo) {
  const TempDir folder;
  write_recipe(folder.path());
  for (const std::string share : {"parallel.data=2", "parallel.sequence=2"}) {
    ASSERT_EQ(train(folder, share, {"launch", "-n", "2", "--"}, {"--set", "train.steps=20", "--set", share})
                  .exit_code,
              0);
    write_file_atomically(folder / "begin.txt", "3 and 4, then");
    const auto answer = run_stoa({"predict", share, "begin.txt", "--json", "-q"}, folder.path());
    ASSERT_EQ(answer.exit_code, 0) << answer.errors;
    EXPECT_EQ(json_of(answer).at("predictions").size(), 1u);
  }
}

TEST(LaunchTrain, ARunOfTwoGoesOnAsOne) {
  const TempDir folder;
  write_recipe(folder.path());
  const auto set = std::vector<std::string>{"--set", "train.steps=100", "--set", "parallel.sequence=2"};
  ASSERT_EQ(train(folder, "run", {"launch", "-n", "2", "--"}, set).exit_code, 0);
  const auto whole = read_json(folder / "run/evaluation.json");
  const auto resumed = run_stoa({"train", "--resume", "run", "--step", "50", "-q"}, folder.path());
  ASSERT_EQ(resumed.exit_code, 0) << resumed.errors;
  EXPECT_NEAR(read_json(folder / "run/evaluation.json")["metrics"]["loss"].get<double>(),
              whole["metrics"]["loss"].get<double>(), 1e-4);
}

TEST(LaunchTrain, ANumberOfProcessesThatDoesNotFitIsRefused) {
  const TempDir folder;
  write_recipe(folder.path());
  const auto ended = train(folder, "run", {"launch", "-n", "3", "--"}, {"--set", "parallel.sequence=2"});
  EXPECT_EQ(ended.exit_code, 2);
  STOA_EXPECT_CONTAINS(ended.errors, "3 processes run, but [parallel] asks for");
  EXPECT_FALSE(fs::exists(folder / "run"));
}

TEST(LaunchTrain, ModelsWithoutSequencesRefuseToSplitThem) {
  const TempDir folder;
  write_tiny_recipe(folder / "tiny.toml");
  const auto ended = run_stoa(
      {"launch", "-n", "2", "--", "train", "tiny.toml", "--out", "run", "-q", "--set", "parallel.sequence=2"},
      folder.path());
  EXPECT_EQ(ended.exit_code, 2);
  STOA_EXPECT_CONTAINS(ended.errors, "no sequences that can be split");
  EXPECT_FALSE(fs::exists(folder / "run"));
}

TEST(DoctorDistributed, MeasuresEveryKindOfGroup) {
  const TempDir folder;
  const auto ended =
      run_stoa({"launch", "-n", "4", "--", "doctor", "--distributed", "--sequence", "2", "--json", "-q"},
               folder.path());
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  const Json found = json_of(ended);
  ASSERT_TRUE(found.is_object()) << ended.output;
  EXPECT_EQ(found["processes"], 4);
  std::vector<std::string> names;
  for (const auto& group : found["groups"]) {
    names.push_back(group["name"]);
    EXPECT_GT(group["latency_us"].get<double>(), 0);
    EXPECT_GT(group["exchange_gb_per_s"].get<double>(), 0);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"world", "data", "sequence"}));
}

TEST(DoctorDistributed, NeedsSeveralProcesses) {
  const auto ended = run_stoa({"doctor", "--distributed"});
  EXPECT_EQ(ended.exit_code, 2);
  STOA_EXPECT_CONTAINS(ended.errors, "stoa launch -n 4 -- doctor --distributed");
}

}  // namespace
}  // namespace stoa::test
