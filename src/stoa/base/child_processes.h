#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace stoa {

/// Pieces of a stream put together to whole lines, each behind a prefix. Where a carriage return starts a
/// line over, as progress does, only what stands behind the last one is kept.
class PrefixedLines {
 public:
  explicit PrefixedLines(std::string prefix) : prefix_(std::move(prefix)) {}

  /// The lines that `piece` completes, with their line breaks. A line that grows over 64 KiB is broken.
  std::string add(std::string_view piece);
  /// What is left at the end of the stream, as a line; empty where nothing is.
  std::string rest();

 private:
  std::string line(std::string_view text) const;

  std::string prefix_, begun_;
};

/// A process to be started.
struct ChildCommand {
  std::vector<std::string> words;  ///< the program, a path or a name to be found in PATH, and its arguments
  std::vector<std::pair<std::string, std::string>> environment;  ///< what differs from this process's own
  /// Lines of both its outputs go to standard error behind this, and it reads nothing. Where empty, it has
  /// this process's own outputs, and its input unless that is a terminal.
  std::string prefix;
};

/// How a process ended.
struct ChildEnd {
  int exit_code = 0;         ///< 128 + the signal where one ended it, as shells count
  int signal = 0;            ///< 0 for none
  std::string text() const;  ///< "ended with exit code 3", "was ended by signal 9 (Killed)"
};

/// One of a group that ended otherwise than with exit code 0.
struct FailedChild {
  std::size_t index = 0;
  ChildEnd how;
};

/// How a group of processes ended.
struct ChildrenEnd {
  std::optional<std::size_t> failed_first;  ///< the first that ended otherwise than with exit code 0
  ChildEnd how;                             ///< how that one ended
  /// That one and all that ended so after it by themselves, in this order: none that was sent a signal.
  std::vector<FailedChild> failed;
  /// SIGINT or SIGTERM came, and one or more ended by it. A process that ends by it has not failed.
  bool interrupted = false;
};

/// How long what is waited for.
struct ChildPatience {
  std::chrono::milliseconds after_failure{10'000};  ///< the others, once one has failed, before SIGTERM
  std::chrono::milliseconds after_term{5'000};      ///< then, before SIGKILL
  /// A signal that comes again within this time is the same: `timeout` signals a process and then its group.
  std::chrono::milliseconds same_signal{300};
};

/// Starts all the commands and returns when the last has ended. The first SIGINT or SIGTERM that comes to
/// this process is passed on to all of them once, without a time limit; a second one kills them. Ctrl-Z stops
/// and `fg` continues them too. Each leads a process group of its own: so the terminal's Ctrl-C comes to it
/// once, and what it has started ends with it.
///
/// No child outlives the calling thread, however that ends: the kernel then kills it (PR_SET_PDEATHSIG, with
/// SIGKILL, since one that hangs would not heed a milder signal). What a child has started in its turn is not
/// reached that way. Call from the main thread, and once at a time.
///
/// Throws ConfigError where a command cannot be started (those that were are killed), IoError where the
/// system refuses another process or pipe.
ChildrenEnd run_children(const std::vector<ChildCommand>& commands, const ChildPatience& patience = {});

}  // namespace stoa
