#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "stoa/base/child_processes.h"
#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/progress.h"
#include "stoa/base/text.h"
#include "stoa/cli/commands.h"
#include "stoa/dist/free_port.h"
#include "stoa/tensor/runtime.h"

namespace fs = std::filesystem;

namespace stoa::cli {

namespace {

constexpr std::int64_t kMostProcesses = 1024, kMostNodes = 65'536;

struct LaunchArguments {
  std::int64_t processes = 0, nodes = 1, restarts = 0;
  std::optional<std::int64_t> node;
  std::string master, program;
};

/// Where rank 0 listens.
struct Address {
  std::string host;
  int port = 0;
};

/// What the command line came to.
struct Launch {
  std::vector<std::string> command;
  std::int64_t processes = 1, nodes = 1, node = 0, restarts = 0;
  std::optional<Address> master;  // a free port of this machine where absent
};

/// The rank that ended a launch; its exit code is the launch's.
class RankFailed : public Error {
 public:
  RankFailed(const std::string& what, int exit_code) : Error(what), exit_code_(exit_code) {}
  int exit_code() const noexcept override { return exit_code_; }

 private:
  int exit_code_;
};

void check_range(const char* flag, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value < least || value > most)
    throw ConfigError(
        format("{} is {}; it must be {} to {}", flag, value, thousands(least), thousands(most)));
}

Address master_address(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  Address address = {text.substr(0, colon), 0};
  const char *begin = text.data() + (colon == std::string::npos ? text.size() : colon + 1),
             *end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(begin, end, address.port);
  if (error != std::errc() || stop != end || address.host.empty() || address.port < 1 ||
      address.port > 65'535)
    throw ConfigError(format("--master is `{}`; it must be HOST:PORT with a port of 1 to 65,535", text));
  if (address.host.front() == '[' && address.host.back() == ']')  // of IPv6: [::1]:29500
    address.host = address.host.substr(1, address.host.size() - 2);
  return address;
}

/// This very program; by /proc where its file was replaced or removed since.
std::string this_program() {
  const std::string link = "/proc/self/exe";
  std::error_code failed;
  const fs::path file = fs::read_symlink(link, failed);
  return failed || !fs::exists(file) ? link : file.string();
}

bool has_flag(const std::vector<std::string>& words, const std::string& flag) {
  return std::ranges::any_of(
      words, [&](const std::string& word) { return word == flag || word.starts_with(flag + "="); });
}

/// A restart runs the same command line again: one that starts a run must say that it may go on with it.
void check_restartable(const std::vector<std::string>& words) {
  const auto command = std::ranges::find_if(words, [](const auto& word) { return !word.starts_with('-'); });
  if (command == words.end() || *command != "train") return;
  if (has_flag(words, "--or-resume") || has_flag(words, "--resume")) return;
  throw ConfigError(
      "--restarts runs the same command again, which would not go on with the run it began; add "
      "`--out RUN --or-resume` to `train`");
}

Launch launch_of(const LaunchArguments& arguments, const std::vector<std::string>& behind) {
  if (const char* rank = std::getenv("RANK"))
    throw ConfigError(
        format("RANK={} is set: this process belongs to a launch already and starts none of its own; run the "
               "command itself, or unset RANK",
               rank));
  check_range("-n", arguments.processes, 1, kMostProcesses);
  check_range("--nodes", arguments.nodes, 1, kMostNodes);
  check_range("--restarts", arguments.restarts, 0, 1'000'000);
  if (arguments.node) check_range("--node", *arguments.node, 0, arguments.nodes - 1);
  if (arguments.nodes > 1 && (!arguments.node || arguments.master.empty()))
    throw ConfigError(format("--nodes {} needs {} too: {}", arguments.nodes,
                             arguments.node ? "--master HOST:PORT" : "--node I",
                             arguments.node ? "an address of the first machine that all of them reach"
                                            : "which of the machines, from 0, this one is"));
  if (behind.empty() && arguments.program.empty())
    throw ConfigError("nothing to start: name a command behind --, as in stoa launch -n 4 -- train RECIPE");

  Launch launch = {{arguments.program.empty() ? this_program() : arguments.program},
                   arguments.processes,
                   arguments.nodes,
                   arguments.node.value_or(0),
                   arguments.restarts,
                   std::nullopt};
  if (!arguments.master.empty()) launch.master = master_address(arguments.master);
  if (launch.restarts > 0 && arguments.program.empty()) check_restartable(behind);
  launch.command.insert(launch.command.end(), behind.begin(), behind.end());
  return launch;
}

/// The processes of this machine, with what torchrun tells its own in the environment.
std::vector<ChildCommand> ranks(const Launch& launch, std::int64_t restart) {
  const Address master = launch.master ? *launch.master : Address{"127.0.0.1", dist::free_port()};
  std::vector<ChildCommand> commands;
  for (std::int64_t local = 0; local < launch.processes; ++local) {
    const std::int64_t rank = launch.node * launch.processes + local;
    ChildCommand command = {launch.command,
                            {{"RANK", std::to_string(rank)},
                             {"WORLD_SIZE", std::to_string(launch.nodes * launch.processes)},
                             {"LOCAL_RANK", std::to_string(local)},
                             {"LOCAL_WORLD_SIZE", std::to_string(launch.processes)},
                             {"GROUP_RANK", std::to_string(launch.node)},
                             {"GROUP_WORLD_SIZE", std::to_string(launch.nodes)},
                             {"MASTER_ADDR", master.host},
                             {"MASTER_PORT", std::to_string(master.port)},
                             {"TORCHELASTIC_RESTART_COUNT", std::to_string(restart)},
                             {"TORCHELASTIC_MAX_RESTARTS", std::to_string(launch.restarts)},
                             {"TORCHELASTIC_USE_AGENT_STORE", "False"}},  // rank 0 serves the store
                            rank == 0 ? "" : format("[rank {}] ", rank)};
    // each process would else take every core for itself
    const char* threads = std::getenv("OMP_NUM_THREADS");
    if (threads == nullptr || *threads == '\0')
      command.environment.emplace_back(
          "OMP_NUM_THREADS", std::to_string(std::max<std::int64_t>(available_cores() / launch.processes, 1)));
    commands.push_back(std::move(command));
  }
  return commands;
}

/// False for errors that come again however often one starts: they are the user's to mend, or the user's
/// wish.
bool worth_a_restart(int exit_code) {
  return exit_code != ConfigError("").exit_code() && exit_code != DataError("").exit_code() &&
         exit_code != Interrupted("").exit_code();
}

/// Of the ranks that failed the one because of which the others did. It need not be the first to end: what a
/// rank cannot go on with the others may notice before it has ended. A rank that has lost others ends with 1.
const FailedChild& cause_of(const ChildrenEnd& end) {
  constexpr int kLostOthers = 1;
  const FailedChild* cause = nullptr;
  for (const auto& failed : end.failed)  // of those for the user the lowest rank, which has this terminal
    if (!worth_a_restart(failed.how.exit_code) && (cause == nullptr || failed.index < cause->index))
      cause = &failed;
  if (cause != nullptr) return *cause;
  const auto other = std::ranges::find_if(
      end.failed, [](const auto& failed) { return failed.how.exit_code != kLostOthers; });
  return other == end.failed.end() ? end.failed.front() : *other;
}

/// What the cause was to the other ranks; nothing where they ended alike.
const char* role_text(const FailedChild& cause, const ChildrenEnd& end) {
  const FailedChild& first = end.failed.front();
  if (cause.index == first.index) return ", the first to fail";
  return cause.how.exit_code == first.how.exit_code ? "" : ", which ended the others";
}

void launch_command(const Program& program, const LaunchArguments& arguments) {
  if (program.json) throw ConfigError("`launch` prints nothing itself; put --json behind --, to the command");
  const Launch launch = launch_of(arguments, program.behind);
  for (std::int64_t restart = 0;; ++restart) {
    const ChildrenEnd end = run_children(ranks(launch, restart));
    if (end.interrupted) throw Interrupted("interrupted; every rank has ended");
    if (end.failed.empty()) return;
    const FailedChild& cause = cause_of(end);
    const std::int64_t rank = launch.node * launch.processes + static_cast<std::int64_t>(cause.index);
    const std::string what = format("rank {} {}", rank, cause.how.text());
    if (restart == launch.restarts || !worth_a_restart(cause.how.exit_code))
      throw RankFailed(launch.processes > 1 ? what + role_text(cause, end) : what, cause.how.exit_code);
    log_warning(format("{}; starting all ranks anew, restart {} of {}", what, restart + 1, launch.restarts));
  }
}

}  // namespace

void add_launch(Program& program) {
  const auto arguments = std::make_shared<LaunchArguments>();
  CLI::App& command = add_command(
      program, "launch", "start a command as several processes that train together, as torchrun does",
      "stoa launch -n 4 -- train recipes/wide_net/fashion_mnist.toml --out runs/four\n"
      "  stoa launch -n 8 --nodes 2 --node 0 --master host0:29500 --program ./my_program -- --its-flags",
      [&program, arguments] { launch_command(program, *arguments); });
  command
      .add_option("-n,--processes", arguments->processes,
                  "processes on this machine, each with its RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, "
                  "MASTER_PORT; rank 0 has this terminal, lines of others come behind [rank N]")
      ->type_name("N")
      ->required();
  command
      .add_option("--restarts", arguments->restarts,
                  "after a failure start all anew, up to K times, unless the recipe or the data are wrong; "
                  "`train` needs --or-resume then")
      ->type_name("K");
  command
      .add_option("--program", arguments->program,
                  "start this program instead of stoa; what stands behind -- are its arguments")
      ->type_name("FILE");
  command.add_option("--nodes", arguments->nodes, "machines; start one launch on each")->type_name("N");
  command.add_option("--node", arguments->node, "which of the machines this one is, from 0")->type_name("I");
  command
      .add_option("--master", arguments->master,
                  "with --nodes: an address of machine 0, and a port that is free there")
      ->type_name("HOST:PORT");
}

}  // namespace stoa::cli
