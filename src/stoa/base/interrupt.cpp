#include "stoa/base/interrupt.h"

#include <unistd.h>
#include <csignal>

#include <atomic>
#include <cerrno>
#include <string_view>

#include "stoa/base/progress.h"

namespace stoa {

namespace {

std::atomic<bool> asked_to_stop{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

std::atomic<bool> on_terminal{false};  // where a progress line is open
constexpr std::string_view kAnswer = "\nstopping after this step; Ctrl-C again stops at once\n";

void on_signal(int) {
  if (asked_to_stop.exchange(true)) ::_exit(130);
  if (verbosity() == Verbosity::kQuiet) return;
  const int error = errno;  // what the interrupted code is about to look at
  const std::string_view answer = kAnswer.substr(on_terminal ? 0 : 1);
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, answer.data(), answer.size());
  errno = error;
}

}  // namespace

void install_interrupt_handler() {
  on_terminal = ::isatty(STDERR_FILENO) != 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // reads and writes in progress go on
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() {
  return asked_to_stop.load(std::memory_order_relaxed);
}

}  // namespace stoa
