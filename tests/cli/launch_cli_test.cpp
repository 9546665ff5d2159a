// Several processes started by the real program.
#include <gtest/gtest.h>
#include <sched.h>

#include <map>
#include <set>
#include <sstream>
#include <utility>

#include "stoa/base/files.h"
#include "support/process_state.h"
#include "support/program.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

using Words = std::vector<std::string>;

// `stoa launch FLAGS --program sh -- -c SCRIPT`
Words shells(Words flags, const std::string& script) {
  flags.insert(flags.begin(), "launch");
  flags.insert(flags.end(), {"--program", "sh", "--", "-c", script});
  return flags;
}

Ended run_shells(const TempDir& folder, const Words& flags, const std::string& script) {
  return run_stoa(shells(flags, script), folder.path());
}

std::string refused(const Words& arguments, const Words& environment = {}) {
  const Ended ended = run_stoa(arguments, fs::temp_directory_path(), environment);
  EXPECT_EQ(ended.exit_code, 2) << ended.errors;
  EXPECT_EQ(line_count(ended.errors), 1) << ended.errors;
  EXPECT_EQ(ended.output, "");
  return ended.errors;
}

// Variables as `env` printed them.
std::map<std::string, std::string> variables(const fs::path& file) {
  std::istringstream lines(read_file(file));
  std::map<std::string, std::string> found;
  for (std::string line; std::getline(lines, line);)
    if (const std::size_t at = line.find('='); at != std::string::npos)
      found[line.substr(0, at)] = line.substr(at + 1);
  return found;
}

TEST(Launch, TellsEachRankItsPlace) {
  const TempDir folder;
  ASSERT_EQ(run_shells(folder, {"-n", "3"}, "env > $RANK").exit_code, 0);
  std::set<std::string> ports;
  for (const std::string rank : {"0", "1", "2"}) {
    auto seen = variables(folder / rank);
    EXPECT_EQ(seen["RANK"], rank);
    EXPECT_EQ(seen["LOCAL_RANK"], rank);
    EXPECT_EQ(seen["WORLD_SIZE"], "3");
    EXPECT_EQ(seen["LOCAL_WORLD_SIZE"], "3");
    EXPECT_EQ(seen["MASTER_ADDR"], "127.0.0.1");
    EXPECT_EQ(seen["TORCHELASTIC_RESTART_COUNT"], "0");
    EXPECT_EQ(seen["TORCHELASTIC_USE_AGENT_STORE"], "False");
    ports.insert(seen["MASTER_PORT"]);
  }
  ASSERT_EQ(ports.size(), 1u);
  EXPECT_GT(std::stoi(*ports.begin()), 1023);
}

TEST(Launch, CountsRanksOverSeveralMachines) {
  const TempDir folder;
  ASSERT_EQ(run_shells(folder, {"-n", "2", "--nodes", "3", "--node", "1", "--master", "[fe80::1]:29501"},
                       "env > $RANK")
                .exit_code,
            0);
  auto seen = variables(folder / "3");
  EXPECT_EQ(seen["LOCAL_RANK"], "1");
  EXPECT_EQ(seen["WORLD_SIZE"], "6");
  EXPECT_EQ(seen["LOCAL_WORLD_SIZE"], "2");
  EXPECT_EQ(seen["GROUP_RANK"], "1");
  EXPECT_EQ(seen["MASTER_ADDR"], "fe80::1");
  EXPECT_EQ(seen["MASTER_PORT"], "29501");
  EXPECT_TRUE(fs::exists(folder / "2"));
}

TEST(Launch, SharesTheCoresUnlessToldOtherwise) {
  const TempDir folder;
  const auto threads = [&](Words command) {
    const Words launch = stoa(shells({"-n", "2"}, "echo $OMP_NUM_THREADS > $RANK"));
    command.insert(command.end(), launch.begin(), launch.end());
    EXPECT_EQ(RunningProgram(command, folder.path()).wait().exit_code, 0);
    return std::stoi(read_file(folder / "1"));
  };
  EXPECT_EQ(threads({"env", "OMP_NUM_THREADS=5"}), 5);
  cpu_set_t cores;
  ASSERT_EQ(sched_getaffinity(0, sizeof cores, &cores), 0);
  const int shared = threads({"env", "-u", "OMP_NUM_THREADS"});
  EXPECT_GE(shared, 1);
  EXPECT_LE(shared, std::max(CPU_COUNT(&cores) / 2, 1));
}

TEST(Launch, StartsThisProgramWhereNoneIsNamed) {
  const Ended ended = run_stoa({"launch", "-n", "2", "--", "--version"});
  EXPECT_EQ(ended.exit_code, 0);
  EXPECT_TRUE(ended.output.starts_with("stoa 0.")) << ended.output;
  EXPECT_EQ(ended.errors, "[rank 1] " + ended.output);
}

TEST(Launch, WordsOfTheCommandStayAsTheyAre) {
  const TempDir folder;
  const Ended ended = run_stoa({"launch", "-n", "1", "--program", "printf", "--", "<%s>", "[1,2]", "",
                                "--json", "--", "%%", "{}", "-n"},
                               folder.path());
  EXPECT_EQ(ended.exit_code, 0) << ended.errors;
  EXPECT_EQ(ended.output, "<[1,2]><><--json><--><%%><{}><-n>");
}

TEST(Launch, LinesOfOtherRanksAreWholeAndPrefixed) {
  const TempDir folder;
  const Ended ended = run_shells(
      folder, {"-n", "3"}, "for i in $(seq 200); do printf a; printf 'b\\n'; printf c >&2; echo d >&2; done");
  EXPECT_EQ(ended.exit_code, 0);
  std::istringstream lines(ended.errors);
  std::map<std::string, int> counts;  // of lines of other ranks; rank 0 writes parts of lines among them
  for (std::string line; std::getline(lines, line);)
    for (const std::string expected : {"[rank 1] ab", "[rank 1] cd", "[rank 2] ab", "[rank 2] cd"})
      counts[expected] += line.ends_with(expected);
  for (const auto& [line, count] : counts) EXPECT_EQ(count, 200) << line;
  EXPECT_EQ(line_count(ended.output), 200);
}

TEST(Launch, OneRankThatFailsEndsAllAndGivesItsExitCode) {
  const TempDir folder;
  const Ended ended = run_shells(folder, {"-n", "3"},
                                 "echo $$ > $RANK; [ $RANK = 1 ] || exec sleep 1000; "
                                 "while [ ! -s 0 ] || [ ! -s 2 ]; do sleep 0.01; done; exit 41");
  EXPECT_EQ(ended.exit_code, 41);
  EXPECT_EQ(ended.errors, "stoa: rank 1 ended with exit code 41, the first to fail\n");
  for (const char* rank : {"0", "2"}) EXPECT_FALSE(is_running(std::stoi(read_file(folder / rank))));
}

TEST(Launch, ASignalIsToldAndCountedAsShellsDo) {
  const TempDir folder;
  const Ended ended = run_shells(folder, {"-n", "2"}, "[ $RANK = 0 ] || kill -SEGV $$");
  EXPECT_EQ(ended.exit_code, 128 + SIGSEGV);
  STOA_EXPECT_CONTAINS(ended.errors, "stoa: rank 1 was ended by signal 11 (Segmentation fault)");
}

// Ranks that write their process numbers and run until they are ended.
std::unique_ptr<RunningProgram> running(const TempDir& folder, const std::string& script) {
  auto program = std::make_unique<RunningProgram>(stoa(shells({"-n", "2"}, script)), folder.path());
  EXPECT_TRUE(program->wait_until([&] {
    return fs::exists(folder / "0") && fs::exists(folder / "1") && line_count(read_file(folder / "0")) == 1 &&
           line_count(read_file(folder / "1")) == 1;
  })) << program->errors();
  return program;
}

TEST(Launch, KilledItLeavesNoRankBehind) {
  const TempDir folder;
  EXPECT_EQ(running(folder, "echo $$ > $RANK; trap '' INT TERM; while :; do sleep 0.1; done")
                ->wait_after(SIGKILL)
                .exit_code,
            128 + SIGKILL);
  for (const char* rank : {"0", "1"}) EXPECT_TRUE(ends(std::stoi(read_file(folder / rank))));
}

TEST(Launch, CtrlCComesToEveryRankOnceAndExits130) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const TempDir folder;
    const Ended ended = running(folder,
                                "trap 'echo signal >> signals.$RANK; exit 130' INT TERM; echo $$ > $RANK; "
                                "while :; do sleep 0.01; done")
                            ->wait_after(signal);
    EXPECT_EQ(ended.exit_code, 130);
    EXPECT_TRUE(ended.errors.ends_with("stoa: interrupted; every rank has ended\n")) << ended.errors;
    for (const char* rank : {"0", "1"})
      EXPECT_EQ(read_file(folder / (std::string("signals.") + rank)), "signal\n");
  }
}

TEST(Launch, CtrlCTwiceKillsRanksThatHeedNone) {
  const TempDir folder;
  const auto program = running(folder, "trap '' INT TERM; echo $$ > $RANK; while :; do sleep 0.1; done");
  program->signal(SIGINT);
  EXPECT_EQ(program->wait_after(SIGTERM).exit_code, 130);
  for (const char* rank : {"0", "1"}) EXPECT_FALSE(is_running(std::stoi(read_file(folder / rank))));
}

TEST(Launch, CtrlCLeavesACheckpointOfTheRun) {
  const TempDir folder;
  write_tiny_recipe(folder / "tiny.toml");
  RunningProgram program(stoa({"launch", "-n", "1", "--restarts", "3", "--", "train", "tiny.toml", "--out",
                               "run", "--or-resume", "--set", "train.steps=100000000"}),
                         folder.path());
  ASSERT_TRUE(program.wait_until([&] { return fs::exists(folder / "run/metrics.jsonl"); }));
  const Ended ended = program.wait_after(SIGINT);
  EXPECT_EQ(ended.exit_code, 130);
  STOA_EXPECT_CONTAINS(ended.errors, "stoa train --resume run");
  EXPECT_FALSE(fs::is_empty(folder / "run/checkpoints"));
}

TEST(Launch, RestartsAreCounted) {
  const TempDir folder;
  const Ended ended =
      run_shells(folder, {"-n", "2", "--restarts", "3"},
                 "echo $TORCHELASTIC_RESTART_COUNT >> $RANK; [ $TORCHELASTIC_RESTART_COUNT = 2 ] || exit 7");
  EXPECT_EQ(ended.exit_code, 0);
  EXPECT_EQ(read_file(folder / "0"), "0\n1\n2\n");
  EXPECT_EQ(line_count(ended.errors), 2) << ended.errors;
  STOA_EXPECT_CONTAINS(ended.errors, "ended with exit code 7; starting all ranks anew, restart 2 of 3\n");
}

TEST(Launch, RestartsAreLimited) {
  const TempDir folder;
  const Ended ended = run_shells(folder, {"-n", "1", "--restarts", "2"}, "echo >> count; exit 7");
  EXPECT_EQ(ended.exit_code, 7);
  EXPECT_EQ(line_count(read_file(folder / "count")), 3);
}

TEST(Launch, WhatTheUserHasToMendIsNotRestarted) {
  for (const char* code : {"2", "3", "130"}) {
    const TempDir folder;
    const Ended ended =
        run_shells(folder, {"-n", "1", "--restarts", "2"}, std::string("echo >> count; exit ") + code);
    EXPECT_EQ(ended.exit_code, std::stoi(code));
    EXPECT_EQ(line_count(read_file(folder / "count")), 1);
  }
}

// Rank 1 ends with exit code 1, as who has lost another; rank 0, which it lost, only ends once that was seen.
std::string rank_0_ends_later(const std::string& how) {
  return "echo $$ > $RANK; echo >> starts.$RANK; [ $RANK = 0 ] || exit 1; "
         "while [ ! -s 1 ] || kill -0 $(cat 1); do sleep 0.01; done 2> /dev/null; rm 1; " +
         how;
}

TEST(Launch, WhatTheUserHasToMendIsTheCauseThoughOthersEndBefore) {
  for (const std::string code : {"2", "3", "130"}) {
    const TempDir folder;
    const Ended ended = run_shells(folder, {"-n", "2", "--restarts", "2"}, rank_0_ends_later("exit " + code));
    EXPECT_EQ(ended.exit_code, std::stoi(code));
    EXPECT_EQ(ended.errors, "stoa: rank 0 ended with exit code " + code + ", which ended the others\n");
    for (const char* rank : {"0", "1"})
      EXPECT_EQ(line_count(read_file(folder / (std::string("starts.") + rank))), 1);
  }
}

TEST(Launch, WhoHasLostOthersIsNotTheCause) {
  const TempDir folder;
  const Ended ended = run_shells(folder, {"-n", "2", "--restarts", "1"}, rank_0_ends_later("kill -SEGV $$"));
  EXPECT_EQ(ended.exit_code, 128 + SIGSEGV);
  EXPECT_EQ(line_count(read_file(folder / "starts.0")), 2);
  STOA_EXPECT_CONTAINS(
      ended.errors,
      "rank 0 was ended by signal 11 (Segmentation fault); starting all ranks anew, restart 1 of 1");
}

TEST(Launch, WhatIsWrongWithACommandLineOrARecipeIsSaidOnce) {
  for (const auto& [wrong, said] :
       {std::pair(Words{"train", "no_such.toml"}, "no_such.toml: there is no such recipe"),
        {{"train", "--no-such-flag"}, "unknown flag `--no-such-flag`"},
        {{"eval", "run"}, "eval is the work of one process, and 2 were started"},
        {{"predict", "run", "a.png"}, "predict is the work of one process, and 2 were started"}}) {
    Words command = {"launch", "-n", "2", "--"};
    command.insert(command.end(), wrong.begin(), wrong.end());
    const Ended ended = run_stoa(command);
    EXPECT_EQ(ended.exit_code, 2);
    EXPECT_TRUE(ended.errors.starts_with(std::string("stoa: ") + said)) << ended.errors;
    STOA_EXPECT_CONTAINS(ended.errors, "\nstoa: rank 0 ended with exit code 2");
    EXPECT_EQ(line_count(ended.errors), 2) << ended.errors;
  }
  const Ended talkative = run_stoa({"launch", "-n", "2", "--", "train", "no_such.toml", "-v"});
  STOA_EXPECT_CONTAINS(talkative.errors, "[rank 1] stoa: no_such.toml");
}

bool has_checkpoint(const fs::path& run) {
  std::error_code absent;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints", absent))
    if (entry.path().filename().string().starts_with("step-")) return true;
  return false;
}

TEST(Launch, ARestartedRunEndsAsAnUndisturbedOne) {
  const TempDir folder;
  write_tiny_recipe(folder / "tiny.toml", "[checkpoint]\nevery = 50\n");
  const auto train = [](const std::string& run) {
    return Words{"train", "tiny.toml", "--out", run, "--or-resume", "--set", "train.steps=500"};
  };
  Words command = {"launch", "-n", "1", "--restarts", "1", "--"};
  for (const std::string& word : train("killed")) command.push_back(word);
  RunningProgram program(stoa(command), folder.path());
  ASSERT_TRUE(program.wait_until([&] { return has_checkpoint(folder / "killed"); }));
  ::kill(std::stoi(read_file(folder / "killed/.lock")), SIGKILL);
  const Ended ended = program.wait();
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  STOA_EXPECT_CONTAINS(ended.errors, "rank 0 was ended by signal 9 (Killed); starting all ranks anew");
  STOA_EXPECT_CONTAINS(ended.errors, "killed: going on from step");
  ASSERT_EQ(run_stoa(train("whole"), folder.path()).exit_code, 0);
  const std::string model = "checkpoints/step-500/model.safetensors";
  EXPECT_TRUE(read_file(folder / "killed" / model) == read_file(folder / "whole" / model));
}

TEST(OrResume, StartsGoesOnAndRefusesAnotherRecipe) {
  const TempDir folder;
  write_tiny_recipe(folder / "tiny.toml");
  const Words command = {"train", "tiny.toml", "--out", "run", "--or-resume"};
  ASSERT_EQ(run_stoa(command, folder.path()).exit_code, 0);
  const Ended again = run_stoa(command, folder.path());
  EXPECT_EQ(again.exit_code, 0);
  STOA_EXPECT_CONTAINS(again.errors, "run: going on from step 12");
  Words other = command;
  other.insert(other.end(), {"--set", "train.steps=13"});
  const Ended refused = run_stoa(other, folder.path());
  EXPECT_EQ(refused.exit_code, 2);
  STOA_EXPECT_CONTAINS(refused.errors, "`train.steps` is 12 in the run, 13 in the recipe");
}

TEST(OrResume, NeedsTheFolder) {
  STOA_EXPECT_CONTAINS(refused({"train", "tiny.toml", "--or-resume"}), "name RECIPE and --out");
  STOA_EXPECT_CONTAINS(refused({"train", "--resume", "run", "--or-resume"}), "name RECIPE and --out");
}

TEST(Launch, RestartsOfATrainingNeedOrResume) {
  STOA_EXPECT_CONTAINS(refused({"launch", "-n", "2", "--restarts", "1", "--", "-q", "train", "a.toml"}),
                       "add `--out RUN --or-resume`");
}

TEST(Launch, RefusesCountsOutOfRange) {
  STOA_EXPECT_CONTAINS(refused({"launch", "-n", "0", "--", "info"}), "-n is 0; it must be 1 to 1,024");
  STOA_EXPECT_CONTAINS(refused({"launch", "-n", "1025", "--", "info"}), "-n is 1025");
  STOA_EXPECT_CONTAINS(refused({"launch", "-n", "1", "--restarts", "-1", "--", "info"}), "--restarts is -1");
  STOA_EXPECT_CONTAINS(refused({"launch", "-n", "x", "--", "info"}), "--processes");
  STOA_EXPECT_CONTAINS(refused({"launch", "--", "info"}), "--processes is required");
}

TEST(Launch, RefusesMachinesThatDoNotFitTogether) {
  STOA_EXPECT_CONTAINS(refused({"launch", "-n", "1", "--nodes", "2", "--master", "a:1", "--", "info"}),
                       "--nodes 2 needs --node I too");
  STOA_EXPECT_CONTAINS(refused({"launch", "-n", "1", "--nodes", "2", "--node", "0", "--", "info"}),
                       "--nodes 2 needs --master HOST:PORT too");
  STOA_EXPECT_CONTAINS(refused({"launch", "-n", "1", "--node", "1", "--", "info"}),
                       "--node is 1; it must be 0 to 0");
  for (const std::string master : {"host", "host:", ":1", "host:0", "host:65536", "host:1x"})
    STOA_EXPECT_CONTAINS(refused({"launch", "-n", "1", "--master", master, "--", "info"}),
                         "--master is `" + master + "`; it must be HOST:PORT");
}

TEST(Launch, RefusesNothingAndWhatStandsBeforeTheMark) {
  STOA_EXPECT_CONTAINS(refused({"launch", "-n", "2"}), "name a command behind --");
  STOA_EXPECT_CONTAINS(refused({"launch", "-n", "2", "--"}), "name a command behind --");
  STOA_EXPECT_CONTAINS(refused({"launch", "-n", "2", "train", "a.toml", "--out", "b"}),
                       "`train` stands before --");
  STOA_EXPECT_CONTAINS(refused({"launch", "-n", "2", "--restart", "1", "--", "info"}),
                       "did you mean `--restarts`?");
  STOA_EXPECT_CONTAINS(refused({"launch", "--json", "-n", "2", "--", "info"}), "put --json behind --");
}

TEST(Launch, RefusesAProgramThatCannotBeStarted) {
  STOA_EXPECT_CONTAINS(refused({"launch", "-n", "2", "--program", "./no-such-program"}),
                       "cannot start `./no-such-program`: No such file or directory");
}

TEST(Launch, RefusesALaunchWithinALaunch) {
  STOA_EXPECT_CONTAINS(refused({"launch", "-n", "2", "--", "info"}, {"RANK=3"}), "RANK=3 is set");
}

}  // namespace
}  // namespace stoa::test
