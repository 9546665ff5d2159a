#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "stoa/base/json.h"
#include "support/temp_dir.h"

namespace stoa::test {

/// How a command ended. `exit_code` is 128 + the signal where a signal ended it, as shells count.
struct Ended {
  int exit_code = 0;
  std::string output;  ///< standard output
  std::string errors;  ///< standard error
};

/// A command that is running, its output going to files. Ended (SIGKILL) when it leaves the scope.
class RunningProgram {
 public:
  RunningProgram(std::vector<std::string> command, const std::filesystem::path& folder,
                 const std::vector<std::string>& environment = {}) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, (files_ / "out").c_str(), O_WRONLY | O_CREAT, 0600);
    posix_spawn_file_actions_addopen(&actions, 2, (files_ / "err").c_str(), O_WRONLY | O_CREAT, 0600);
    posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
    std::vector<std::string> variables = environment;
    for (char** entry = environ; *entry != nullptr; ++entry) variables.emplace_back(*entry);
    const auto pointers = [](std::vector<std::string>& texts) {
      std::vector<char*> list;
      for (std::string& text : texts) list.push_back(text.data());
      list.push_back(nullptr);
      return list;
    };
    const int failed = posix_spawnp(&process_, command[0].c_str(), &actions, nullptr,
                                    pointers(command).data(), pointers(variables).data());
    posix_spawn_file_actions_destroy(&actions);
    if (failed != 0) throw std::runtime_error("cannot start " + command[0]);
  }
  ~RunningProgram() {
    if (process_ > 0) wait_after(SIGKILL);
  }
  RunningProgram(const RunningProgram&) = delete;
  RunningProgram& operator=(const RunningProgram&) = delete;

  void signal(int number) const { ::kill(process_, number); }

  /// What it has written to standard error so far.
  std::string errors() const { return content("err"); }

  /// Waits until `condition` holds; false where the program ended, or two minutes passed, before it did.
  bool wait_until(const std::function<bool()>& condition) const {
    for (int i = 0; i < 12000; ++i) {
      if (condition()) return true;
      siginfo_t info{};
      if (waitid(P_PID, static_cast<id_t>(process_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
          info.si_pid != 0)
        return condition();
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  Ended wait() {
    int status = 0;
    ::waitpid(std::exchange(process_, -1), &status, 0);
    return {WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), content("out"),
            content("err")};
  }
  Ended wait_after(int number) {
    signal(number);
    return wait();
  }

 private:
  std::string content(const std::string& name) const {
    std::ifstream file(files_ / name);
    std::string text, line;
    while (std::getline(file, line)) {
      // the sanitizer's own remark on an allocation that it refuses, which a test may be after
      if (line.find("WARNING: AddressSanitizer failed to allocate") != std::string::npos) continue;
      text += line;
      if (!file.eof()) text += '\n';
    }
    return text;
  }

  TempDir files_;
  pid_t process_ = -1;
};

/// `stoa` with arguments, in a folder.
inline std::vector<std::string> stoa(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), STOA_PROGRAM);
  return arguments;
}
inline Ended run_stoa(const std::vector<std::string>& arguments,
                      const std::filesystem::path& folder = std::filesystem::temp_directory_path(),
                      const std::vector<std::string>& environment = {}) {
  return RunningProgram(stoa(arguments), folder, environment).wait();
}

/// The JSON that standard output holds; a discarded value where it is not exactly one JSON value.
inline Json json_of(const Ended& ended) {
  return Json::parse(ended.output, nullptr, false);
}

/// Number of lines of a text that ends with a line break.
inline auto line_count(const std::string& text) {
  return std::count(text.begin(), text.end(), '\n');
}

/// A recipe that trains in a second: 8 x 8 synthetic images, a WideNet of two layers. Further lines come
/// behind it, so they may open tables of their own; keys are changed with --set.
inline void write_tiny_recipe(const std::filesystem::path& file, const std::string& more = "") {
  std::ofstream(file) << R"(title = "tiny"
[task]
name = "image_classification"
[data]
format = "synthetic"
image_size = 8
channels = 1
classes = 4
train_limit = 64
test_limit = 32
[model]
name = "wide_net"
patch = 4
dim = 16
depth = 2
heads = 2
mlp_dim = 32
dropout = 0.1
[model.router]
experts = 2
top_k = 1
[train]
steps = 12
batch_size = 8
log_every = 2
[runtime]
threads = 1
precision = "fp32"
)" << more;
}

}  // namespace stoa::test
