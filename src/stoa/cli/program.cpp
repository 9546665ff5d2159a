#include "stoa/cli/program.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/progress.h"
#include "stoa/base/text.h"
#include "stoa/cli/commands.h"
#include "stoa/cli/one_process.h"
#include "stoa/tensor/runtime.h"

namespace stoa::cli {

namespace {

constexpr const char* kExamples =
    "Examples:\n"
    "  stoa train recipes/wide_net/fashion_mnist.toml --set data.path=/data/fashion-mnist\n"
    "  stoa eval runs/fashion_mnist-0\n"
    "  stoa predict runs/fashion_mnist-0 shirt.png\n"
    "  stoa COMMAND --help\n";

void add_shared_flags(Program& program, CLI::App& app) {
  app.add_flag("--json", program.json, "print one JSON object on standard output");
  app.add_flag("-q,--quiet", program.quiet, "say nothing but results, warnings and errors");
  app.add_flag("-v,--verbose", program.verbose, "say more: time and memory the command took");
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  return names;
}

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

// Takes out of `stoa launch ... -- COMMAND` the command, whose words are to stay as they are: CLI11 would
// read
// `[a,b]` as two.
std::vector<std::string> take_command_behind(std::vector<std::string>& words) {
  const auto command = std::ranges::find_if(words, [](const auto& word) { return !word.starts_with('-'); });
  if (command == words.end() || *command != "launch") return {};
  const auto mark = std::find(command, words.end(), "--");
  if (mark == words.end()) return {};
  std::vector<std::string> behind(mark + 1, words.end());
  words.erase(mark, words.end());
  return behind;
}

// What is wrong with the words that `app` could not place, or an empty string.
std::string misplaced(const CLI::App& app, const std::string& called) {
  const std::vector<std::string> words = app.remaining();
  if (called == "stoa launch" && !words.empty() && !words[0].starts_with('-'))
    return format(
        "`{}` stands before --; the command to start comes behind it: stoa launch -n 4 -- train "
        "RECIPE",
        words[0]);
  for (const std::string& word : words) {
    if (word.size() < 2 || word[0] != '-') continue;
    const std::string flag = word.substr(0, word.find('='));
    return format("unknown flag `{}` of `{}`{}", flag, called, suggestion(flag, flag_names(app)));
  }
  if (words.empty()) return "";
  if (app.get_subcommands().empty() && !command_names(app).empty())
    return format("unknown command `{}`{}", words[0], suggestion(words[0], command_names(app)));
  return format("`{}` takes no further argument `{}`; see `{} --help`", called, words[0], called);
}

// One line for a command line that CLI11 refused. A misspelt word is reported before anything it may have
// caused.
std::string usage_error(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* level = &app;
  std::string called = "stoa";
  while (true) {
    if (const std::string line = misplaced(*level, called); !line.empty()) return line;
    const std::vector<CLI::App*> chosen = level->get_subcommands();
    if (chosen.empty()) break;
    level = chosen[0];
    called += " " + level->get_name();
  }
  return level == &app ? error.what() : format("{}; see `{} --help`", error.what(), called);
}

int refuse(const Failure& failure, bool verbose = false) {
  std::fflush(stdout);
  const bool of_user = failure.exit_code == ConfigError("").exit_code();
  if (verbose || !of_user || !another_says_it()) std::fprintf(stderr, "stoa: %s\n", failure.line.c_str());
  return failure.exit_code;
}

void say_cost(std::chrono::steady_clock::time_point start) {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  log_info(format("took {}, peak memory {}", duration(seconds), bytes(static_cast<double>(peak_memory()))));
}

}  // namespace

void add_commands(Program& program) {
  CLI::App& app = program.app;
  app.description("Trains, evaluates, predicts with and measures published deep-learning systems.");
  app.footer(kExamples);
  app.require_subcommand(0, 1);
  app.set_help_flag("-h,--help", "show this help");
  app.set_version_flag("--version", std::string("stoa " STOA_VERSION), "show the version");
  app.get_formatter()->label("REQUIRED", "(required)");
  app.get_formatter()->label("Positionals", "Arguments");
  app.get_formatter()->label("SUBCOMMAND", "COMMAND");
  app.get_formatter()->column_width(28);
  add_shared_flags(program, app);
  for (const auto add : {add_train, add_eval, add_predict, add_export, add_info, add_report, add_data,
                         add_experiment, add_plan, add_launch, add_doctor, add_options, add_completion})
    add(program);
}

CLI::App& add_subcommand(Program& program, CLI::App& parent, const std::string& name,
                         const std::string& summary, const std::string& example,
                         std::function<void()> action) {
  CLI::App& command = *parent.add_subcommand(name, summary);
  command.group("Commands");
  command.footer("Example:\n  " + example + "\n");
  add_shared_flags(program, command);
  command.callback([&program, action = std::move(action)] { program.action = action; });
  return command;
}

CLI::App& add_command(Program& program, const std::string& name, const std::string& summary,
                      const std::string& example, std::function<void()> action) {
  return add_subcommand(program, program.app, name, summary, example, std::move(action));
}

CLI::Option* add_set_option(CLI::App& command, std::vector<std::string>& set) {
  return command.add_option("--set", set, "change a key of the recipe; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

void set_words(CLI::Option& option, const std::vector<std::string>& words) {
  std::string type;
  for (const std::string& word : words) type += (type.empty() ? "" : "|") + word;
  CLI::Validator validator = CLI::IsMember(words);
  option.type_name(type)->check(validator.description(""));
}

void print_result(const Program& program, const Json& json, const std::string& text) {
  // file names need not be UTF-8; JSON has to be
  std::string output = program.json ? json.dump(2, ' ', false, Json::error_handler_t::replace) : text;
  if (output.empty() || output.back() != '\n') output += '\n';
  std::fwrite(output.data(), 1, output.size(), stdout);
  if (std::fflush(stdout) != 0) throw IoError("the result could not be written to standard output");
}

int run(int argc, const char* const* argv) {
  const auto start = std::chrono::steady_clock::now();
  CLI::App app;
  app.name("stoa");
  Program program{app};
  try {
    add_commands(program);
    std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
    program.behind = take_command_behind(words);
    std::ranges::reverse(words);  // as CLI11 takes them
    app.parse(std::move(words));
    if (!program.action) {
      std::fputs(app.help().c_str(), stderr);
      return ConfigError("").exit_code();
    }
    if (program.verbose) set_verbosity(Verbosity::kDebug);
    if (program.quiet) set_verbosity(Verbosity::kQuiet);
    program.action();
    if (program.verbose) say_cost(start);
    return 0;
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);  // the chosen command's
    return 0;
  } catch (const CLI::CallForVersion& version) {
    std::printf("%s\n", version.what());
    return 0;
  } catch (const CLI::ParseError& error) {
    return refuse({usage_error(app, error), ConfigError("").exit_code()});
  } catch (...) {
    return refuse(current_failure(), program.verbose);
  }
}

}  // namespace stoa::cli
