#include "stoa/base/child_processes.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <set>
#include <sstream>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "support/process_state.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

using namespace std::chrono_literals;

// Long enough that a test which waits for it is stopped by ctest.
constexpr ChildPatience kPatient = {1h, 1h, 0ms};
constexpr ChildPatience kImpatient = {0ms, 0ms, 0ms};

ChildCommand shell(const std::string& script, const std::string& prefix = "") {
  return {{"sh", "-c", script}, {}, prefix};
}

// What the children leave on standard error.
std::string errors_of(const std::vector<ChildCommand>& commands) {
  testing::internal::CaptureStderr();
  run_children(commands, kPatient);
  return testing::internal::GetCapturedStderr();
}

// No child of this process is left, ended or not.
bool nothing_left() {
  return ::waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD;
}

TEST(PrefixedLines, AreGivenAwayWhole) {
  PrefixedLines lines("[1] ");
  EXPECT_EQ(lines.add("on"), "");
  EXPECT_EQ(lines.add("e\ntwo\nth"), "[1] one\n[1] two\n");
  EXPECT_EQ(lines.add("ree\n\n"), "[1] three\n[1] \n");
  EXPECT_EQ(lines.rest(), "");
}

TEST(PrefixedLines, TheLastNeedsNoLineBreak) {
  PrefixedLines lines("[1] ");
  EXPECT_EQ(lines.add("end"), "");
  EXPECT_EQ(lines.rest(), "[1] end\n");
  EXPECT_EQ(lines.rest(), "");
}

TEST(PrefixedLines, KeepWhatATerminalWouldShowAtTheEnd) {
  PrefixedLines lines("> ");
  EXPECT_EQ(lines.add("10 %\r20 %\r30 %\ndos\r\n"), "> 30 %\n> dos\n");
}

TEST(PrefixedLines, AnEndlessLineIsBroken) {
  PrefixedLines lines("");
  const std::string piece(40'000, 'x');
  EXPECT_EQ(lines.add(piece), "");
  EXPECT_EQ(lines.add(piece), piece + piece + "\n");
}

TEST(ChildProcesses, EndWellWhereAllDo) {
  const ChildrenEnd end = run_children({shell("exit 0"), shell("true")}, kPatient);
  EXPECT_FALSE(end.failed_first);
  EXPECT_FALSE(end.interrupted);
  EXPECT_TRUE(nothing_left());
}

TEST(ChildProcesses, TheEnvironmentIsTheirsAndOtherwiseThisOne) {
  ::setenv("STOA_CHILD_KEPT", "kept", 1);
  ::setenv("STOA_CHILD_CHANGED", "before", 1);
  testing::internal::CaptureStdout();
  run_children({{{"env"}, {{"STOA_CHILD_CHANGED", "after"}, {"STOA_CHILD_NEW", "new"}}, ""}}, kPatient);
  std::istringstream lines(testing::internal::GetCapturedStdout());
  std::multiset<std::string> seen;
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("STOA_CHILD_")) seen.insert(line);
  const std::multiset<std::string> expected = {"STOA_CHILD_CHANGED=after", "STOA_CHILD_KEPT=kept",
                                               "STOA_CHILD_NEW=new"};
  EXPECT_EQ(seen, expected);
}

TEST(ChildProcesses, WithoutPrefixHaveTheOutputsOfThisProcess) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  run_children({shell("printf out; printf err >&2")}, kPatient);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "out");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "err");
}

TEST(ChildProcesses, WithPrefixWriteBothOutputsToStandardError) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(errors_of({shell("echo out", "[1] ")}), "[1] out\n");
  EXPECT_EQ(errors_of({shell("printf err >&2", "[1] ")}), "[1] err\n");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
}

TEST(ChildProcesses, OnlyWithoutPrefixReadTheInputOfThisProcess) {
  const TempDir folder;
  write_file_atomically(folder / "input", "input\n");
  const int before = ::dup(STDIN_FILENO), input = ::open((folder / "input").c_str(), O_RDONLY);
  ::dup2(input, STDIN_FILENO);
  EXPECT_EQ(errors_of({shell("cat; echo done", "[1] ")}), "[1] done\n");
  EXPECT_EQ(errors_of({shell("cat >&2")}), "input\n");
  ::dup2(before, STDIN_FILENO);
  ::close(before);
  ::close(input);
}

TEST(ChildProcesses, LinesOfManyStayWhole) {
  const std::string script =
      "for i in $(seq 300); do printf a; printf 'b\\n'; printf c >&2; echo d >&2; done";
  std::istringstream lines(errors_of({shell(script, "[1] "), shell(script, "[2] "), shell(script, "[3] ")}));
  std::map<std::string, int> counts;
  for (std::string line; std::getline(lines, line);) ++counts[line];
  const std::map<std::string, int> expected = {{"[1] ab", 300}, {"[1] cd", 300}, {"[2] ab", 300},
                                               {"[2] cd", 300}, {"[3] ab", 300}, {"[3] cd", 300}};
  EXPECT_EQ(counts, expected);
}

TEST(ChildProcesses, MoreThanAPipeHoldsComesThrough) {
  const std::string text = errors_of({shell("yes 123456789012345678901234567890 | head -n 20000", "[1] ")});
  EXPECT_EQ(text.size(), 20'000u * 35);
}

TEST(ChildProcesses, TheFirstFailureIsToldByExitCode) {
  const ChildrenEnd end = run_children({shell("sleep 1000"), shell("exit 7")}, kImpatient);
  ASSERT_TRUE(end.failed_first);
  EXPECT_EQ(*end.failed_first, 1u);
  EXPECT_EQ(end.how.exit_code, 7);
  EXPECT_EQ(end.how.text(), "ended with exit code 7");
  EXPECT_FALSE(end.interrupted);
  EXPECT_TRUE(nothing_left());
}

TEST(ChildProcesses, TheFirstFailureIsToldBySignal) {
  const ChildrenEnd end = run_children({shell("sleep 1000"), shell("kill -KILL $$")}, kImpatient);
  ASSERT_TRUE(end.failed_first);
  EXPECT_EQ(*end.failed_first, 1u);
  EXPECT_EQ(end.how.exit_code, 128 + SIGKILL);
  EXPECT_EQ(end.how.text(), "was ended by signal 9 (Killed)");
}

TEST(ChildProcesses, OthersMayEndByThemselvesAfterAFailure) {
  const TempDir folder;
  const std::string pipe = (folder / "pipe").string(), done = (folder / "done").string();
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const ChildrenEnd end = run_children(
      {shell("cat " + pipe + "; echo done > " + done), shell("exec 9> " + pipe + "; exit 3")}, kPatient);
  EXPECT_EQ(end.failed_first, 1u);
  EXPECT_EQ(read_file(done), "done\n");
}

TEST(ChildProcesses, OthersGetSigtermWhenTheirTimeIsUp) {
  const TempDir folder;
  const std::string ready = (folder / "ready").string(), done = (folder / "done").string();
  const ChildrenEnd end = run_children(
      {shell("trap 'echo done > " + done + "; exit 0' TERM; : > " + ready + "; while :; do sleep 0.01; done"),
       shell("while [ ! -e " + ready + " ]; do sleep 0.01; done; exit 3")},
      {0ms, 1h, 0ms});
  EXPECT_EQ(end.failed_first, 1u);
  EXPECT_EQ(read_file(done), "done\n");
}

TEST(ChildProcesses, AllThatFailByThemselvesAreToldInTheirOrder) {
  const TempDir folder;
  const std::string first = (folder / "first").string();
  const ChildrenEnd end = run_children({shell("while [ ! -s " + first + " ] || kill -0 $(cat " + first +
                                              "); do sleep 0.01; done 2> /dev/null; exit 2"),
                                        shell("echo $$ > " + first + "; exit 1"), shell("exit 0")},
                                       kPatient);
  ASSERT_EQ(end.failed.size(), 2u);
  EXPECT_EQ(end.failed[0].index, 1u);
  EXPECT_EQ(end.failed[0].how.exit_code, 1);
  EXPECT_EQ(end.failed[1].index, 0u);
  EXPECT_EQ(end.failed[1].how.exit_code, 2);
}

TEST(ChildProcesses, OneThatWasSentASignalDidNotFailByItself) {
  const TempDir folder;
  const std::string ready = (folder / "ready").string();
  const ChildrenEnd end =
      run_children({shell("trap 'exit 130' TERM; : > " + ready + "; while :; do sleep 0.01; done"),
                    shell("while [ ! -e " + ready + " ]; do sleep 0.01; done; exit 1")},
                   {0ms, 1h, 0ms});
  ASSERT_EQ(end.failed.size(), 1u);
  EXPECT_EQ(end.failed[0].index, 1u);
}

TEST(ChildProcesses, OneThatHeedsNoSignalIsKilledInTheEnd) {
  const TempDir folder;
  const std::string ready = (folder / "ready").string();
  const ChildrenEnd end =
      run_children({shell("trap '' TERM; : > " + ready + "; while :; do sleep 0.01; done"),
                    shell("while [ ! -e " + ready + " ]; do sleep 0.01; done; exit 3")},
                   {0ms, 1ms, 0ms});
  EXPECT_EQ(end.how.exit_code, 3);
  EXPECT_TRUE(nothing_left());
}

TEST(ChildProcesses, WhatAChildStartedEndsWithIt) {
  const TempDir folder;
  const std::string file = (folder / "process").string();
  run_children({shell("sleep 1000 & echo $! > " + file)}, kPatient);
  EXPECT_TRUE(ends(std::stoi(read_file(file))));
}

// Each child waits until the other can be interrupted, and the first then interrupts this process.
std::vector<ChildCommand> interrupting(const TempDir& folder, const std::string& on_signal) {
  const std::string here = folder.path().string();
  return {shell("trap 'echo 0 >> " + here + "/stopped0; " + on_signal + "' INT; while [ ! -e " + here +
                "/ready ]; do sleep 0.01; done; kill -INT $PPID; while :; do sleep 0.01; done"),
          shell("trap 'echo 1 >> " + here + "/stopped1; exit 130' INT; : > " + here +
                "/ready; while :; do sleep 0.01; done")};
}

TEST(ChildProcesses, AnInterruptIsPassedOnToAllOnce) {
  const TempDir folder;
  const ChildrenEnd end = run_children(interrupting(folder, "exit 130"), kImpatient);
  EXPECT_TRUE(end.interrupted);
  EXPECT_FALSE(end.failed_first);
  EXPECT_EQ(read_file(folder / "stopped0"), "0\n");
  EXPECT_EQ(read_file(folder / "stopped1"), "1\n");
}

TEST(ChildProcesses, TheSameSignalAtOnceCountsOnce) {
  const TempDir folder;
  const std::string again = "kill -INT $PPID; sleep 0.3; echo 0 >> " + (folder / "stopped0").string();
  const ChildrenEnd end = run_children(interrupting(folder, again + "; exit 130"), {0ms, 0ms, 1h});
  EXPECT_TRUE(end.interrupted);
  EXPECT_EQ(read_file(folder / "stopped0"), "0\n0\n");
}

TEST(ChildProcesses, ASecondInterruptKillsThem) {
  const TempDir folder;
  const ChildrenEnd end = run_children(interrupting(folder, "kill -TERM $PPID"), kPatient);
  EXPECT_TRUE(end.interrupted);
  EXPECT_FALSE(end.failed_first);
  EXPECT_TRUE(nothing_left());
}

TEST(ChildProcesses, OneThatEndsWellAfterAnInterruptIsNotInterrupted) {
  const ChildrenEnd end =
      run_children({shell("trap 'exit 0' INT; kill -INT $PPID; while :; do sleep 0.01; done")}, kPatient);
  EXPECT_FALSE(end.interrupted);
  EXPECT_FALSE(end.failed_first);
}

TEST(ChildProcesses, OneThatFailsAfterAnInterruptHasFailed) {
  const ChildrenEnd end =
      run_children({shell("trap 'exit 5' INT; kill -INT $PPID; while :; do sleep 0.01; done"),
                    shell("trap '' INT; sleep 1000")},
                   kImpatient);
  EXPECT_EQ(end.failed_first, 0u);
  EXPECT_EQ(end.how.exit_code, 5);
}

TEST(ChildProcesses, SignalsDoAsBeforeAfterwards) {
  EXPECT_EXIT(
      {
        run_children({shell("exit 0")}, kPatient);
        ::raise(SIGTERM);
      },
      testing::KilledBySignal(SIGTERM), "");
}

TEST(ChildProcesses, AProgramThatIsNotThereIsNamedAndTheOthersEnd) {
  const std::string message = thrown<ConfigError>([] {
    run_children({shell("sleep 1000"), {{"./no-such-program"}, {}, ""}}, kPatient);
  });
  EXPECT_EQ(message, "cannot start `./no-such-program`: No such file or directory");
  EXPECT_TRUE(nothing_left());
}

TEST(ChildProcesses, AFileThatIsNoProgramIsNamed) {
  const TempDir folder;
  write_file_atomically(folder / "text", "text");
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] {
                         run_children({{{(folder / "text").string()}, {}, ""}}, kPatient);
                       }),
                       "Permission denied");
}

}  // namespace
}  // namespace stoa::test
