#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/temp_dir.h"

// Tests that run in several real processes, each this test program again, at one body:
//
//     STOA_PROCESS_TEST(Group, SumsOverAllRanks, 1, 2, 5) {  // with 1, with 2 and with 5 processes
//       auto world = stoa::dist::World::join(stoa::dist::read_place());
//       ...
//       EXPECT_EQ(...);  // what fails in any process fails the test, which then shows that process's output
//     }
//
//     STOA_PROCESS_BODY(one_exits) { ... }
//     TEST(Group, SaysWhoExited) {
//       const auto ranks = run_processes("one_exits", 3);
//       EXPECT_EQ(ranks[1].code, 1) << ranks[1].output;
//     }
namespace stoa::test {

/// The end of one process.
struct ProcessResult {
  int code = 0;            ///< exit code, or minus the signal that ended it
  bool timed_out = false;  ///< killed because the time for all was over
  double seconds = 0;      ///< from the start of all to its end
  std::string output;      ///< of stdout and stderr
};

struct ProcessOptions {
  double timeout_s = 120;                            ///< for all together; whoever still runs is killed
  std::map<std::string, std::string> environment{};  ///< variables set besides
};

/// A port of 127.0.0.1 that is free now.
inline int free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* const at = reinterpret_cast<sockaddr*>(&address);
  const bool found =
      socket >= 0 && ::bind(socket, at, length) == 0 && ::getsockname(socket, at, &length) == 0;
  if (socket >= 0) ::close(socket);
  if (!found) throw std::runtime_error("no free port");
  return ntohs(address.sin_port);
}

/// One of the processes. Killed, with all it started, where it still runs at the end.
class TestProcess {
 public:
  TestProcess(const std::string& body, std::vector<std::string> environment) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    std::vector<std::string> words{"/proc/self/exe", "--gtest_filter=Process.DISABLED_" + body,
                                   "--gtest_also_run_disabled_tests", "--gtest_color=no"};
    std::vector<char*> arguments, variables;
    for (auto& word : words) arguments.push_back(word.data());
    for (auto& variable : environment) variables.push_back(variable.data());
    arguments.push_back(nullptr);
    variables.push_back(nullptr);
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ == 0) {  // until exec nothing but system calls: LibTorch's threads are not here
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != parent) ::_exit(127);
      ::setpgid(0, 0);
      ::dup2(ends[1], STDOUT_FILENO);
      ::dup2(ends[1], STDERR_FILENO);
      ::execve(arguments[0], arguments.data(), variables.data());
      ::_exit(127);
    }
    ::close(ends[1]);
    output_ = ends[0];
    if (pid_ < 0) {
      ::close(output_);
      throw std::runtime_error("cannot start a process");
    }
    ::setpgid(pid_, pid_);  // whoever comes first
    ::fcntl(output_, F_SETFL, O_NONBLOCK);
  }
  ~TestProcess() {
    if (pid_ > 0) kill();
    if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
    ::close(output_);
  }
  TestProcess(const TestProcess&) = delete;
  TestProcess& operator=(const TestProcess&) = delete;

  pid_t id() const { return pid_; }
  int output() const { return output_; }
  bool ended() const { return pid_ == 0; }
  void kill() { ::kill(-pid_, SIGKILL); }
  /// Appends what it has written since.
  void read(std::string& text) const {
    char block[4096];
    for (ssize_t got; (got = ::read(output_, block, sizeof block)) > 0;) text.append(block, got);
  }
  /// True, and its code, if it has ended since.
  bool poll(int& code) {
    siginfo_t info{};
    if (ended() || ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0)
      return false;
    if (info.si_pid != pid_) return false;
    kill();  // what it may have started, before its number is given to another
    int status = 0;
    ::waitpid(pid_, &status, 0);
    code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    pid_ = 0;
    return true;
  }

 private:
  pid_t pid_ = 0;
  int output_ = -1;
};

/// This program's environment without what launchers and test runners put there, then `variables`.
inline std::vector<std::string> process_environment(const std::map<std::string, std::string>& variables) {
  std::vector<std::string> environment;
  for (char** entry = ::environ; *entry != nullptr; ++entry) {
    const std::string text = *entry, name = text.substr(0, text.find('='));
    bool left_out = variables.contains(name) || name == "RANK" || name == "WORLD_SIZE";
    for (const char* start :
         {"LOCAL_", "MASTER_", "TORCHELASTIC_", "SLURM_", "OMPI_", "PMI_", "MPI_", "GTEST_"})
      left_out = left_out || name.starts_with(start);
    if (!left_out) environment.push_back(text);
  }
  for (const auto& [name, value] : variables) environment.push_back(name + "=" + value);
  return environment;
}

/// Runs a body in `world` processes at once, with the variables of a launcher, and waits for all of them. A
/// body that fails an EXPECT or throws ends with code 1.
inline std::vector<ProcessResult> run_processes(const std::string& body, int world,
                                                const ProcessOptions& options = {}) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  const TempDir folder;
  const std::string port = std::to_string(free_port()), size = std::to_string(world);
  std::vector<std::unique_ptr<TestProcess>> processes;
  for (int rank = 0; rank < world; ++rank) {
    std::map<std::string, std::string> variables{
        {"RANK", std::to_string(rank)}, {"LOCAL_RANK", std::to_string(rank)}, {"WORLD_SIZE", size},
        {"LOCAL_WORLD_SIZE", size},     {"MASTER_ADDR", "127.0.0.1"},         {"MASTER_PORT", port},
        {"OMP_NUM_THREADS", "1"},       {"STOA_TEST_MEETING", folder.path()}};
    for (const auto& [name, value] : options.environment) variables[name] = value;
    processes.push_back(std::make_unique<TestProcess>(body, process_environment(variables)));
  }
  std::vector<ProcessResult> results(processes.size());
  for (std::size_t running = processes.size(); running > 0;) {
    std::vector<pollfd> outputs;
    for (const auto& process : processes)
      if (!process->ended()) outputs.push_back({process->output(), POLLIN, 0});
    ::poll(outputs.data(), outputs.size(), 10);
    const bool over = seconds() > options.timeout_s;
    bool read = false;
    for (std::size_t i = 0; i < processes.size(); ++i) {
      if (processes[i]->ended()) continue;
      const auto before = results[i].output.size();
      processes[i]->read(results[i].output);
      read = read || results[i].output.size() > before;
      if (over && !results[i].timed_out) {
        results[i].timed_out = true;
        processes[i]->kill();
      }
      if (!processes[i]->poll(results[i].code)) continue;
      processes[i]->read(results[i].output);
      if (results[i].output.find("0 tests from 0 test suites ran") != std::string::npos)
        throw std::runtime_error("there is no STOA_PROCESS_BODY(" + body + ")");
      results[i].seconds = seconds();
      --running;
    }
    if (!read)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));  // a closed output is always readable
  }
  return results;
}

/// Runs a body in `world` processes and fails the test for each that does not end with code 0, showing its
/// output.
inline void expect_processes(const std::string& body, int world, const ProcessOptions& options = {}) {
  const auto results = run_processes(body, world, options);
  for (std::size_t rank = 0; rank < results.size(); ++rank) {
    const auto& [code, timed_out, seconds, output] = results[rank];
    EXPECT_TRUE(code == 0 && !timed_out)
        << "rank " << rank << " of " << world << (timed_out ? " was killed after " : " ended with code ")
        << (timed_out ? std::to_string(seconds) + " s" : std::to_string(code)) << " and printed:\n"
        << output;
  }
}

/// In a body: tells the other processes, without the code under test. A word can be told once.
inline void tell(const std::string& word) {
  std::ofstream(std::filesystem::path(std::getenv("STOA_TEST_MEETING")) / word);
}
inline bool was_told(const std::string& word) {
  return std::filesystem::exists(std::filesystem::path(std::getenv("STOA_TEST_MEETING")) / word);
}
inline void wait_until_told(const std::string& word) {
  while (!was_told(word)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}
/// In a body: returns when every process has come here. `name` is new for each meeting.
inline void meet(const std::string& name = "start") {
  tell(name + std::getenv("RANK"));
  for (int rank = 0; rank < std::atoi(std::getenv("WORLD_SIZE")); ++rank)
    wait_until_told(name + std::to_string(rank));
}

/// Ends this process at once, as a crash would: nothing is said, no destructor runs.
[[noreturn]] inline void exit_silently(int code) {
  ::_exit(code);
}

}  // namespace stoa::test

/// What run_processes() runs by this name.
#define STOA_PROCESS_BODY(name) TEST(Process, DISABLED_##name)

/// A test that runs the body which follows in the numbers of processes given, one number after the other.
#define STOA_PROCESS_TEST(suite, name, ...)                    \
  TEST(suite, name) {                                          \
    for (const int world : {__VA_ARGS__}) {                    \
      ::stoa::test::expect_processes(#suite "_" #name, world); \
      if (HasFailure()) return;                                \
    }                                                          \
  }                                                            \
  STOA_PROCESS_BODY(suite##_##name)
