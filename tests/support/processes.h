#pragma once

#include <ATen/Parallel.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "stoa/dist/free_port.h"
#include "support/temp_dir.h"

// Tests that run in several real processes, each this test program from its start, at one body:
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

/// A copy of this program from before main() and its first thread. It forks the processes of tests, which so
/// have LibTorch loaded already: loading it takes longer than most tests.
class Nursery {
 public:
  static Nursery& get() {
    static Nursery nursery;
    return nursery;
  }

  /// The new process's id, a child of this one. It writes to `output` and has no variables but these.
  pid_t start(const std::string& body, const std::vector<std::string>& environment, int output) {
    std::string text = body;
    for (const auto& variable : environment) text += '\0' + variable;
    iovec data{text.data(), text.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof output)] = {};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    auto* const descriptor = CMSG_FIRSTHDR(&message);
    descriptor->cmsg_level = SOL_SOCKET;
    descriptor->cmsg_type = SCM_RIGHTS;
    descriptor->cmsg_len = CMSG_LEN(sizeof output);
    std::memcpy(CMSG_DATA(descriptor), &output, sizeof output);
    pid_t child = 0;
    if (::sendmsg(socket_, &message, 0) < 0 || ::recv(socket_, &child, sizeof child, 0) != sizeof child ||
        child <= 0)
      throw std::runtime_error("cannot start a process");
    return child;
  }

 private:
  Nursery() {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
      throw std::runtime_error("no socket");
    const pid_t test = ::getpid();
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // the nursery's grandchildren become this process's children
    const pid_t nursery = ::fork();
    socket_ = ends[nursery == 0 ? 1 : 0];
    ::close(ends[nursery == 0 ? 0 : 1]);
    if (nursery == 0) serve(test);
  }

  /// Returns in the processes that it starts only.
  void serve(pid_t test) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != test) ::_exit(127);
    std::vector<char> text(1 << 20);
    while (true) {
      iovec data{text.data(), text.size()};
      alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
      msghdr message{};
      message.msg_iov = &data;
      message.msg_iovlen = 1;
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      const ssize_t size = ::recvmsg(socket_, &message, 0);
      if (size <= 0) ::_exit(0);  // the test program has ended
      int output = -1;
      std::memcpy(&output, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof output);
      const pid_t between = ::fork();
      if (between == 0) {
        const pid_t child = ::fork();
        if (child != 0) {
          ::send(socket_, &child, sizeof child, 0);
          ::_exit(0);
        }
        become(std::string(text.data(), static_cast<std::size_t>(size)), output, test);
        return;
      }
      ::close(output);
      ::waitpid(between, nullptr, 0);
    }
  }

  /// Turns this process into one that runs a body: main() and Google Test come next.
  void become(const std::string& text, int output, pid_t test) {
    while (::getppid() != test) ::usleep(100);  // until the process between has ended
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != test) ::_exit(127);
    ::setpgid(0, 0);
    ::dup2(output, STDOUT_FILENO);
    ::dup2(output, STDERR_FILENO);
    ::close(output);
    ::close(socket_);
    ::clearenv();
    const std::size_t end = text.find('\0');
    for (std::size_t at = end; at != std::string::npos;) {
      const std::size_t next = text.find('\0', at + 1), equal = text.find('=', at);
      ::setenv(text.substr(at + 1, equal - at - 1).c_str(), text.substr(equal + 1, next - equal - 1).c_str(),
               1);
      at = next;
    }
    // Google Test may have read its variables already, or be about to
    const std::string filter = "Process.DISABLED_" + text.substr(0, end);
    ::setenv("STOA_TEST_BODY", "1", 1);  // for main()
    ::setenv("GTEST_FILTER", filter.c_str(), 1);
    ::setenv("GTEST_ALSO_RUN_DISABLED_TESTS", "1", 1);
    ::setenv("GTEST_COLOR", "no", 1);
    GTEST_FLAG_SET(filter, filter);
    GTEST_FLAG_SET(also_run_disabled_tests, true);
    GTEST_FLAG_SET(color, "no");
    if (const char* threads = std::getenv("OMP_NUM_THREADS")) at::set_num_threads(std::atoi(threads));
  }

  int socket_ = -1;
};

/// Before main(), and so before the first thread.
inline const Nursery& nursery = Nursery::get();

/// One of the processes. Killed, with all it started, where it still runs at the end.
class TestProcess {
 public:
  TestProcess(const std::string& body, const std::vector<std::string>& environment) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    output_ = ends[0];
    pid_ = Nursery::get().start(body, environment, ends[1]);
    ::close(ends[1]);
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

/// Waits until a process listens at the port of 127.0.0.1, a third of a second at most: who asks there too
/// early comes again after a second only.
inline void wait_for_listener(int port) {
  char wanted[16];
  std::snprintf(wanted, sizeof wanted, ":%04X", static_cast<unsigned>(port));
  for (int tries = 0; tries < 33; ++tries) {
    for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
      std::ifstream lines(table);
      std::string number, local, remote, state;
      for (std::string line; std::getline(lines, line);)
        if (std::istringstream(line) >> number >> local >> remote >> state && local.ends_with(wanted) &&
            state == "0A")
          return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

/// Runs a body in `world` processes at once, with the variables of a launcher, and waits for all of them. A
/// body that fails an EXPECT or throws ends with code 1.
inline std::vector<ProcessResult> run_processes(const std::string& body, int world,
                                                const ProcessOptions& options = {}) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  const TempDir folder;
  const int free = dist::free_port();
  const std::string port = std::to_string(free), size = std::to_string(world);
  std::vector<std::unique_ptr<TestProcess>> processes;
  for (int rank = 0; rank < world; ++rank) {
    std::map<std::string, std::string> variables{
        {"RANK", std::to_string(rank)}, {"LOCAL_RANK", std::to_string(rank)}, {"WORLD_SIZE", size},
        {"LOCAL_WORLD_SIZE", size},     {"MASTER_ADDR", "127.0.0.1"},         {"MASTER_PORT", port},
        {"OMP_NUM_THREADS", "1"},       {"STOA_TEST_MEETING", folder.path()}};
    for (const auto& [name, value] : options.environment) variables[name] = value;
    processes.push_back(std::make_unique<TestProcess>(body, process_environment(variables)));
    if (rank == 0 && world > 1) wait_for_listener(free);
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
