#pragma once

#include <functional>
#include <string>
#include <vector>

#include "stoa/base/json.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace stoa::cli {

/// The program while its command line is read: CLI11's tree, the flags that all commands share, and what the
/// chosen command is going to do.
struct Program {
  CLI::App& app;
  bool json = false;
  bool quiet = false;
  bool verbose = false;
  std::function<void()> action = {};
  std::vector<std::string> behind = {};  ///< of `launch`: the words behind its `--`
};

/// Reads the command line, runs the command, and returns the exit code: 0, or an error's (2 usage and
/// recipes, 3 data, 4 device and memory, 130 interrupted, 1 anything else) after one line `stoa: ...` on
/// standard error.
int run(int argc, const char* const* argv);

/// Adds the whole command line to an empty app.
void add_commands(Program& program);

/// Adds one command with the shared flags; `example` ends its help. `action` runs after the command line was
/// accepted.
CLI::App& add_command(Program& program, const std::string& name, const std::string& summary,
                      const std::string& example, std::function<void()> action);

/// Adds a command below another one, as `stoa data prepare`; otherwise as add_command().
CLI::App& add_subcommand(Program& program, CLI::App& parent, const std::string& name,
                         const std::string& summary, const std::string& example,
                         std::function<void()> action);

/// Adds `--set KEY=VALUE`, one value a flag, so that what follows stays a positional.
CLI::Option* add_set_option(CLI::App& command, std::vector<std::string>& set);

/// An option's value is one of these words; its help shows them as its type.
void set_words(CLI::Option& option, const std::vector<std::string>& words);

/// Writes the result of a command to standard output: the JSON object with --json, else the text for people.
/// Throws IoError where standard output takes no more.
void print_result(const Program& program, const Json& json, const std::string& text);

/// The one line and the exit code for the exception being handled. Call in a catch block.
struct Failure {
  std::string line;
  int exit_code = 1;
};
Failure current_failure();

}  // namespace stoa::cli
