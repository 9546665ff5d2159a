#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

namespace stoa::test {

/// This test program once more, as a process of its own that runs only one of its disabled tests: what has to
/// be killed, or needs signals, threads or limits of its own.
class SelfProcess {
 public:
  /// Runs the test `name` ("Suite.DISABLED_Name") with `argument` in its environment.
  SelfProcess(const std::string& name, const std::string& argument) {
    int ready[2];
    if (::pipe2(ready, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ready[1], kReady);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    const std::string filter = "--gtest_filter=" + name, variable = kVariable + ("=" + argument);
    std::vector<char*> environment{const_cast<char*>(variable.c_str())};
    for (char** entry = ::environ; *entry != nullptr; ++entry) environment.push_back(*entry);
    environment.push_back(nullptr);
    char program[] = "/proc/self/exe", also[] = "--gtest_also_run_disabled_tests";
    char* arguments[] = {program, const_cast<char*>(filter.c_str()), also, nullptr};
    const int failed = ::posix_spawn(&pid_, program, &actions, nullptr, arguments, environment.data());
    posix_spawn_file_actions_destroy(&actions);
    ::close(ready[1]);
    ready_ = ready[0];
    if (failed != 0) throw std::runtime_error("cannot start this program again");
  }
  ~SelfProcess() {
    if (pid_ > 0) {
      kill();
      wait();
    }
    ::close(ready_);
  }
  SelfProcess(const SelfProcess&) = delete;
  SelfProcess& operator=(const SelfProcess&) = delete;

  /// Waits until the process says ready(). False if it ended before.
  bool wait_until_ready() const {
    char byte = 0;
    return ::read(ready_, &byte, 1) == 1;
  }
  void kill() const { ::kill(pid_, SIGKILL); }
  /// Waits for its end: the exit code, or minus the signal that ended it.
  int wait() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  /// In the process: what the constructor was given.
  static std::string argument() {
    const char* value = std::getenv(kVariable);
    return value == nullptr ? "" : value;
  }
  /// In the process: lets wait_until_ready() return.
  static void ready() {
    if (::write(kReady, "x", 1) != 1) std::abort();
  }

 private:
  static constexpr const char* kVariable = "STOA_TEST_ARGUMENT";
  static constexpr int kReady = 9;  // descriptor of the process's end of the pipe

  pid_t pid_ = 0;
  int ready_ = -1;
};

}  // namespace stoa::test
