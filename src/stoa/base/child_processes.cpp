#include "stoa/base/child_processes.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kLongestLine = 64 << 10;
constexpr std::array kCaught = {SIGINT, SIGTERM, SIGCHLD, SIGTSTP};

[[noreturn]] void throw_refused(std::string_view what) {
  throw IoError(format("{}: {}", what, std::strerror(errno)));
}

class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor() { close(); }
  int get() const { return number_; }
  void close() {
    if (number_ >= 0) ::close(std::exchange(number_, -1));
  }

 private:
  int number_;
};

struct Pipe {
  Descriptor read, write;
};

Pipe make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw_refused("cannot make a pipe to a process");
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

void never_wait(const Descriptor& descriptor) {
  ::fcntl(descriptor.get(), F_SETFL, ::fcntl(descriptor.get(), F_GETFL) | O_NONBLOCK);
}

// ------------------------------------------------------------------ signals

std::atomic<int> wake_up{-1};  // the end of a pipe that the handler writes to
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

void on_signal(int number) {
  const int error = errno;  // what the interrupted code is about to look at
  const auto byte = static_cast<unsigned char>(number);
  [[maybe_unused]] const auto written = ::write(wake_up, &byte, 1);
  errno = error;
}

sigset_t caught_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : kCaught) sigaddset(&set, number);
  return set;
}

/// Signals as bytes of a pipe that poll() can wait for, as long as this lives.
class Signals {
 public:
  Signals() : pipe_(make_pipe()) {
    never_wait(pipe_.read);
    never_wait(pipe_.write);
    wake_up = pipe_.write.get();
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART | SA_NOCLDSTOP;
    sigemptyset(&action.sa_mask);
    for (std::size_t i = 0; i < kCaught.size(); ++i) sigaction(kCaught[i], &action, &before_[i]);
    const sigset_t caught = caught_signals();
    sigprocmask(SIG_UNBLOCK, &caught, nullptr);
  }
  ~Signals() {
    for (std::size_t i = 0; i < kCaught.size(); ++i) sigaction(kCaught[i], &before_[i], nullptr);
    wake_up = -1;
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  int descriptor() const { return pipe_.read.get(); }
  std::vector<int> take() const {
    std::vector<int> numbers;
    unsigned char byte = 0;
    while (::read(pipe_.read.get(), &byte, 1) == 1) numbers.push_back(byte);
    return numbers;
  }

 private:
  Pipe pipe_;
  std::array<struct sigaction, kCaught.size()> before_{};
};

// ------------------------------------------------------------------ starting

std::vector<std::string> variables_of(const ChildCommand& command) {
  std::vector<std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view variable = *entry;
    const std::string_view name = variable.substr(0, variable.find('='));
    if (std::ranges::none_of(command.environment, [&](const auto& change) { return change.first == name; }))
      variables.emplace_back(variable);
  }
  for (const auto& [name, value] : command.environment) variables.push_back(format("{}={}", name, value));
  return variables;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> list;
  for (std::string& text : texts) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

/// What a child needs between fork and exec, where nothing may be allocated any more.
struct Start {
  std::vector<char*> words, variables;
  int input, output, errors;  // -1: as they are
  int report;                 // where errno goes if exec fails
  pid_t parent;
};

[[noreturn]] void become(const Start& start) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != start.parent) ::_exit(127);  // the parent died before that took effect
  for (const int number : kCaught) std::signal(number, SIG_DFL);
  std::signal(SIGTTOU, SIG_IGN);  // under `stty tostop` its first line on the terminal would stop it
  if (start.input >= 0) ::dup2(start.input, STDIN_FILENO);
  if (start.output >= 0) ::dup2(start.output, STDOUT_FILENO);
  if (start.errors >= 0) ::dup2(start.errors, STDERR_FILENO);
  const sigset_t caught = caught_signals();
  ::sigprocmask(SIG_UNBLOCK, &caught, nullptr);
  ::execvpe(start.words[0], start.words.data(), start.variables.data());
  const int reason = errno;
  [[maybe_unused]] const auto written = ::write(start.report, &reason, sizeof reason);
  ::_exit(127);
}

/// One output of a child on its way to standard error.
struct Stream {
  Descriptor descriptor;
  PrefixedLines lines;
};

struct Child {
  pid_t process = -1;  // -1 once it has ended
  std::vector<Stream> streams;
};

Child start_child(const ChildCommand& command) {
  if (command.words.empty()) throw ConfigError("nothing to start: a command is needed");
  std::vector<std::string> words = command.words, variables = variables_of(command);
  const bool own_outputs = command.prefix.empty();
  const Descriptor nothing(
      own_outputs && ::isatty(STDIN_FILENO) == 0 ? -1 : ::open("/dev/null", O_RDONLY | O_CLOEXEC));
  Pipe report = make_pipe(), output, errors;
  Child child;
  if (!own_outputs) {
    output = make_pipe();
    errors = make_pipe();
  }
  const Start start = {pointers(words),    pointers(variables), nothing.get(), output.write.get(),
                       errors.write.get(), report.write.get(),  ::getpid()};

  sigset_t caught = caught_signals(), before;
  sigprocmask(SIG_BLOCK, &caught, &before);  // the child must not write into this process's pipe
  child.process = ::fork();
  if (child.process == 0) become(start);
  const int refused = errno;
  sigprocmask(SIG_SETMASK, &before, nullptr);
  errno = refused;
  if (child.process < 0) throw_refused(format("cannot start a process for `{}`", command.words[0]));

  report.write.close();
  int reason = 0;
  ssize_t count = 0;
  do count = ::read(report.read.get(), &reason, sizeof reason);
  while (count < 0 && errno == EINTR);
  if (count > 0) {
    ::waitpid(child.process, nullptr, 0);
    throw ConfigError(format("cannot start `{}`: {}", command.words[0], std::strerror(reason)));
  }
  for (Pipe* pipe : {&output, &errors})
    if (!own_outputs) {
      never_wait(pipe->read);
      child.streams.push_back({std::move(pipe->read), PrefixedLines(command.prefix)});
    }
  return child;
}

// ------------------------------------------------------------------ running

void write_all(std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(STDERR_FILENO, text.data(), text.size());
    if (count > 0) {
      text.remove_prefix(static_cast<std::size_t>(count));
    } else if (errno == EAGAIN) {
      pollfd ready = {STDERR_FILENO, POLLOUT, 0};
      ::poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      return;  // there is nobody left to tell
    }
  }
}

/// Whole lines to standard error, as many at a time as a pipe takes undivided: others write there too.
void show(std::string_view lines) {
  static const bool terminal = ::isatty(STDERR_FILENO) != 0;
  while (!lines.empty()) {
    std::size_t end = lines.substr(0, PIPE_BUF).rfind('\n');
    if (end == std::string_view::npos) end = lines.find('\n');
    const std::string_view batch = lines.substr(0, end == std::string_view::npos ? end : end + 1);
    // on a terminal a progress line may stand there; it is drawn again below
    write_all(terminal ? format("\r\033[K{}", batch) : std::string(batch));
    lines.remove_prefix(batch.size());
  }
}

class Children {
 public:
  Children(const std::vector<ChildCommand>& commands, const ChildPatience& patience) : patience_(patience) {
    children_.reserve(commands.size());
    try {
      for (const ChildCommand& command : commands) children_.push_back(start_child(command));
    } catch (...) {
      end_all();
      throw;
    }
  }
  ~Children() { end_all(); }
  Children(const Children&) = delete;
  Children& operator=(const Children&) = delete;

  ChildrenEnd run() {
    while (std::ranges::any_of(children_, [](const Child& child) { return child.process > 0; })) {
      wait_and_forward();
      for (const int number : signals_.take()) answer(number);
      collect();
      press();
    }
    return result_;
  }

 private:
  void end_all() {
    signal_all(SIGKILL);
    for (Child& child : children_)
      if (child.process > 0) ::waitpid(std::exchange(child.process, -1), nullptr, 0);
  }

  void signal_all(int number) const {
    for (const Child& child : children_)
      if (child.process > 0) ::kill(-child.process, number);
  }

  /// Until a child writes or ends, a signal comes or the time is up that the others have after a failure.
  void wait_and_forward() {
    std::vector<pollfd> ready = {{signals_.descriptor(), POLLIN, 0}};
    std::vector<Stream*> streams;
    for (Child& child : children_)
      for (Stream& stream : child.streams)
        if (stream.descriptor.get() >= 0) {
          ready.push_back({stream.descriptor.get(), POLLIN, 0});
          streams.push_back(&stream);
        }
    int milliseconds = -1;
    if (deadline_) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline_ - Clock::now()).count();
      milliseconds = static_cast<int>(std::clamp<std::int64_t>(left, 0, INT_MAX));
    }
    if (::poll(ready.data(), ready.size(), milliseconds) <= 0) return;
    for (std::size_t i = 0; i < streams.size(); ++i)
      if (ready[i + 1].revents != 0) forward(*streams[i]);
  }

  /// What a stream holds now. False where that was nothing.
  static bool forward(Stream& stream) {
    char piece[16 << 10];
    const ssize_t count = ::read(stream.descriptor.get(), piece, sizeof piece);
    if (count > 0) {
      show(stream.lines.add({piece, static_cast<std::size_t>(count)}));
      return true;
    }
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    show(stream.lines.rest());
    stream.descriptor.close();
    return false;
  }

  void answer(int number) {
    if (number == SIGTSTP) {
      signal_all(SIGSTOP);
      ::raise(SIGSTOP);  // until `fg`
      signal_all(SIGCONT);
    }
    if (number != SIGINT && number != SIGTERM) return;
    if (number == passed_on_ && Clock::now() - passed_on_at_ < patience_.same_signal) return;
    signal_all(passed_on_ == 0 ? number : SIGKILL);
    killed_ = passed_on_ != 0;
    passed_on_ = number;
    passed_on_at_ = Clock::now();
  }

  void collect() {
    std::vector<std::size_t> failed;
    std::vector<ChildEnd> ends(children_.size());
    for (std::size_t i = 0; i < children_.size(); ++i) {
      siginfo_t info{};
      const auto process = static_cast<id_t>(children_[i].process);
      if (children_[i].process < 0 || ::waitid(P_PID, process, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
          info.si_pid == 0)
        continue;
      ends[i] = end_of(children_[i]);
      if (ends[i].exit_code == 0) continue;
      if (by_signal_passed_on(ends[i]))
        result_.interrupted = true;
      else
        failed.push_back(i);
    }
    if (failed.empty() || pressed_) return;
    // of several found at once, one that a signal ended is what the others noticed
    std::ranges::stable_sort(failed, {}, [&](std::size_t i) { return ends[i].signal == 0; });
    for (const std::size_t i : failed) result_.failed.push_back({i, ends[i]});
    if (result_.failed_first) return;
    result_.failed_first = failed[0];
    result_.how = ends[failed[0]];
    deadline_ = Clock::now() + patience_.after_failure;
  }

  /// Takes leave of a child that has ended. As long as it is not waited for, its number is no other group's.
  static ChildEnd end_of(Child& child) {
    ::kill(-child.process, SIGKILL);  // what it started and left behind
    int status = 0;
    ::waitpid(std::exchange(child.process, -1), &status, 0);
    for (Stream& stream : child.streams) {
      while (stream.descriptor.get() >= 0 && forward(stream)) {
      }
      show(stream.lines.rest());
      stream.descriptor.close();
    }
    if (WIFSIGNALED(status)) return {128 + WTERMSIG(status), WTERMSIG(status)};
    return {WEXITSTATUS(status), 0};
  }

  bool by_signal_passed_on(const ChildEnd& end) const {
    if (passed_on_ == 0) return false;
    return killed_ || end.exit_code == 128 + SIGINT || end.exit_code == 128 + SIGTERM;
  }

  /// Ends those that have not ended by themselves in time after a failure.
  void press() {
    if (!deadline_ || Clock::now() < *deadline_) return;
    signal_all(pressed_ ? SIGKILL : SIGTERM);
    deadline_ = pressed_ ? std::nullopt : std::optional(Clock::now() + patience_.after_term);
    pressed_ = true;
  }

  Signals signals_;  // before the first child, whose end must not be missed
  ChildPatience patience_;
  std::vector<Child> children_;
  ChildrenEnd result_;
  std::optional<Clock::time_point> deadline_;
  bool pressed_ = false;
  int passed_on_ = 0;  // the signal
  Clock::time_point passed_on_at_;
  bool killed_ = false;  // by a second signal
};

}  // namespace

std::string PrefixedLines::line(std::string_view text) const {
  while (text.ends_with('\r')) text.remove_suffix(1);
  const std::size_t overwritten = text.rfind('\r');
  if (overwritten != std::string_view::npos) text.remove_prefix(overwritten + 1);
  return format("{}{}\n", prefix_, text);
}

std::string PrefixedLines::add(std::string_view piece) {
  std::string lines;
  for (std::size_t end = 0; (end = piece.find('\n')) != std::string_view::npos;
       piece.remove_prefix(end + 1)) {
    begun_ += piece.substr(0, end);
    lines += line(std::exchange(begun_, {}));
  }
  begun_ += piece;
  if (begun_.size() > kLongestLine) lines += line(std::exchange(begun_, {}));
  return lines;
}

std::string PrefixedLines::rest() {
  return begun_.empty() ? "" : line(std::exchange(begun_, {}));
}

std::string ChildEnd::text() const {
  if (signal != 0) return format("was ended by signal {} ({})", signal, ::strsignal(signal));
  return format("ended with exit code {}", exit_code);
}

ChildrenEnd run_children(const std::vector<ChildCommand>& commands, const ChildPatience& patience) {
  return Children(commands, patience).run();
}

}  // namespace stoa
