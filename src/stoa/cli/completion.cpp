#include <CLI/CLI.hpp>
#include <map>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/cli/commands.h"
#include "stoa/systems/catalog.h"

namespace stoa::cli {

namespace {

const std::vector<std::string> kShells = {"bash", "zsh", "fish"};

// What an argument is completed with.
struct Values {
  enum class Kind { kNothing, kWords, kToml, kFolders, kTomlOrFolders, kFiles } kind = Kind::kNothing;
  std::vector<std::string> words;
};

struct Flag {
  std::vector<std::string> names;  // with their dashes
  std::string help;
  bool takes_value = false;
  Values values;
};

struct Command {
  std::string name, summary;
  std::vector<Flag> flags;
  std::vector<Values> positionals;
};

std::vector<std::string> catalog_names(std::string CatalogEntry::*member) {
  std::vector<std::string> names;
  for (const CatalogEntry& entry : catalog())
    if (std::ranges::find(names, entry.*member) == names.end()) names.push_back(entry.*member);
  return names;
}

// By the word that stands for the value in help: RUN, DIR, CHECKPOINT ...
Values values_of(const std::string& placeholder) {
  using Kind = Values::Kind;
  if (placeholder == "RECIPE" || placeholder == "EXPERIMENT") return {Kind::kToml, {}};
  if (placeholder == "RECIPE|RUN") return {Kind::kTomlOrFolders, {}};
  if (placeholder == "RUN" || placeholder == "DIR") return {Kind::kFolders, {}};
  if (placeholder == "FILE") return {Kind::kFiles, {}};
  if (placeholder == "SHELL") return {Kind::kWords, kShells};
  if (placeholder == "CHECKPOINT") return {Kind::kWords, {"last", "best"}};
  if (placeholder == "TASK") return {Kind::kWords, catalog_names(&CatalogEntry::task)};
  if (placeholder == "MODEL") return {Kind::kWords, catalog_names(&CatalogEntry::model)};
  return {};
}

Command command_of(const CLI::App& app) {
  Command command = {app.get_name(), app.get_description(), {}, {}};
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) {
      command.positionals.push_back(values_of(option->get_name(true)));
      continue;
    }
    Flag flag = {{}, option->get_description(), option->get_items_expected_max() > 0, {}};
    for (const std::string& name : option->get_snames()) flag.names.push_back("-" + name);
    for (const std::string& name : option->get_lnames()) flag.names.push_back("--" + name);
    if (flag.takes_value) flag.values = values_of(option->get_type_name());
    command.flags.push_back(std::move(flag));
  }
  return command;
}

std::vector<Command> commands_of(const CLI::App& app) {
  std::vector<Command> commands;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    commands.push_back(command_of(*command));
  return commands;
}

std::string all_flags(const Command& command) {
  std::vector<std::string> names;
  for (const Flag& flag : command.flags) names.insert(names.end(), flag.names.begin(), flag.names.end());
  return join(names, " ");
}

std::string replaced(std::string text, const std::map<char, std::string>& replacements) {
  std::string result;
  for (const char c : text) {
    const auto found = replacements.find(c);
    result += found == replacements.end() ? std::string(1, c) : found->second;
  }
  return result;
}

// ------------------------------------------------------------------ bash

constexpr const char* kBashStart =
    R"sh(# Completion of stoa for bash. To use it: source <(stoa completion bash)
_stoa_files() {
  compopt -o filenames
  case "$1" in
    folders) mapfile -t COMPREPLY < <(compgen -d -- "$2") ;;
    files) mapfile -t COMPREPLY < <(compgen -f -- "$2") ;;
    *) mapfile -t COMPREPLY < <(compgen -f -X '!*.toml' -- "$2"; compgen -d -- "$2") ;;
  esac
}
_stoa_words() {
  mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2")
}
)sh";

std::string bash_values(const Values& values) {
  switch (values.kind) {
    case Values::Kind::kNothing:
      return ":";
    case Values::Kind::kWords:
      return format("_stoa_words '{}' \"$current\"", join(values.words, " "));
    case Values::Kind::kFolders:
      return "_stoa_files folders \"$current\"";
    case Values::Kind::kFiles:
      return "_stoa_files files \"$current\"";
    default:
      return "_stoa_files toml \"$current\"";
  }
}

std::string bash_script(const Command& root, const std::vector<Command>& commands) {
  std::vector<std::string> names, value_flags;
  std::string values, positionals, flags;
  for (const Command& command : commands) {
    names.push_back(command.name);
    for (const Flag& flag : command.flags)
      for (const std::string& name : flag.names)
        if (flag.takes_value) {
          value_flags.push_back(name);
          values += format("    \"{} {}\") {}; return ;;\n", command.name, name, bash_values(flag.values));
        }
    flags += format("      {}) _stoa_words '{}' \"$current\" ;;\n", command.name, all_flags(command));
    const auto& places = command.positionals;
    for (std::size_t i = 0; i < places.size(); ++i)  // the last one may be repeated
      positionals += format("    {}-{}) {} ;;\n", command.name,
                            i + 1 == places.size() ? "*" : std::to_string(i + 1), bash_values(places[i]));
  }
  return format(R"sh({}_stoa() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" command="" place=0 value="" word
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    if [[ -n "$value" ]]; then value=""; continue; fi
    case "$word" in {}) value=1 ;; esac
    [[ "$command $word" == "launch --" ]] && {{ command=""; place=0; continue; }}  # a command follows
    [[ "$word" == -* ]] && continue
    [[ -n "$command" ]] && place=$((place + 1))
    case "$word" in {}) [[ -z "$command" ]] && command="$word" ;; esac
  done
  COMPREPLY=()
  case "$command $previous" in
{}  esac
  if [[ -z "$command" ]]; then
    _stoa_words '{} {}' "$current"
    return
  fi
  if [[ "$current" == -* ]]; then
    case "$command" in
{}    esac
    return
  fi
  case "$command-$((place + 1))" in
{}  esac
}}
complete -F _stoa stoa
)sh",
                kBashStart, join(value_flags, "|"), join(names, "|"), values, join(names, " "),
                all_flags(root), flags, positionals);
}

// ------------------------------------------------------------------ zsh

std::string zsh_values(const Values& values) {
  switch (values.kind) {
    case Values::Kind::kNothing:
      return " ";
    case Values::Kind::kWords:
      return "(" + join(values.words, " ") + ")";
    case Values::Kind::kFolders:
      return "_files -/";
    case Values::Kind::kFiles:
      return "_files";
    default:
      return "_files -g \"*.toml(-.)\"";
  }
}

std::string zsh_help(const std::string& help) {
  return replaced(help, {{'\'', "'\\''"}, {'[', "("}, {']', ")"}, {':', "\\:"}});
}

std::string zsh_flags(const Command& command) {
  std::string specs;
  for (const Flag& flag : command.flags)
    for (const std::string& name : flag.names)
      specs += format(" \\\n        '*{}[{}]{}'", name, zsh_help(flag.help),
                      flag.takes_value ? ":value:" + zsh_values(flag.values) : "");
  return specs;
}

std::string zsh_script(const Command& root, const std::vector<Command>& commands) {
  std::string summaries, cases;
  for (const Command& command : commands) {
    summaries += format("        '{}:{}'\n", command.name, zsh_help(command.summary));
    std::string specs = zsh_flags(command);
    for (std::size_t i = 0; i < command.positionals.size(); ++i)
      specs += format(" \\\n        '{}:argument:{}'",
                      i + 1 == command.positionals.size() ? "*" : std::to_string(i + 1),
                      zsh_values(command.positionals[i]));
    cases += format("      {}) _arguments{} ;;\n", command.name, specs);
  }
  return format(R"sh(#compdef stoa
# Completion of stoa for zsh. To use it: source <(stoa completion zsh)
_stoa() {{
  local state line
  _arguments -C{} \
        '1:command:->command' '*::argument:->argument'
  case $state in
    command)
      local -a commands
      commands=(
{}      )
      _describe command commands ;;
    argument)
      case $line[1] in
{}      esac ;;
  esac
}}
# this file may be a function of $fpath as well as sourced
if [[ $funcstack[1] == _stoa ]]; then _stoa "$@"; else compdef _stoa stoa; fi
)sh",
                zsh_flags(root), summaries, cases);
}

// ------------------------------------------------------------------ fish

std::string fish_values(const Values& values) {
  switch (values.kind) {
    case Values::Kind::kNothing:
      return "-f";
    case Values::Kind::kWords:
      return format("-f -a '{}'", join(values.words, " "));
    case Values::Kind::kFolders:
      return "-f -a '(__fish_complete_directories)'";
    case Values::Kind::kFiles:
      return "-F";
    default:
      return "-f -a '(__fish_complete_suffix .toml)'";
  }
}

std::string fish_text(const std::string& text) {
  return "'" + replaced(text, {{'\'', "\\'"}, {'\\', "\\\\"}}) + "'";
}

std::string fish_flags(const Command& command, const std::string& condition) {
  std::string lines;
  for (const Flag& flag : command.flags) {
    lines += format("complete -c stoa -n '{}'", condition);
    for (const std::string& name : flag.names)
      lines += name.starts_with("--") ? format(" -l {}", name.substr(2)) : format(" -s {}", name.substr(1));
    if (flag.takes_value) lines += " -r " + fish_values(flag.values);
    lines += format(" -d {}\n", fish_text(flag.help));
  }
  return lines;
}

std::string fish_script(const Command& root, const std::vector<Command>& commands) {
  std::string script =
      "# Completion of stoa for fish. To use it: stoa completion fish | source\ncomplete -c stoa -f\n" +
      fish_flags(root, "__fish_use_subcommand");
  for (const Command& command : commands) {
    const std::string condition = "__fish_seen_subcommand_from " + command.name;
    script += format("complete -c stoa -n __fish_use_subcommand -a {} -d {}\n", command.name,
                     fish_text(command.summary));
    script += fish_flags(command, condition);
    for (const Values& values : command.positionals)
      if (values.kind != Values::Kind::kNothing)
        script += format("complete -c stoa -n '{}' {}\n", condition, fish_values(values));
  }
  return script;
}

void completion_command(const Program& program, const std::string& shell) {
  if (std::ranges::find(kShells, shell) == kShells.end())
    throw ConfigError(format("unknown shell `{}`{}", shell, suggestion(shell, kShells)));
  const Command root = command_of(program.app);
  const std::vector<Command> commands = commands_of(program.app);
  const std::string script = shell == "bash"  ? bash_script(root, commands)
                             : shell == "zsh" ? zsh_script(root, commands)
                                              : fish_script(root, commands);
  print_result(program, {{"shell", shell}, {"script", script}}, script);
}

}  // namespace

void add_completion(Program& program) {
  const auto shell = std::make_shared<std::string>();
  CLI::App& command = add_command(program, "completion", "print the completion script of a shell",
                                  "stoa completion bash > ~/.local/share/bash-completion/completions/stoa",
                                  [&program, shell] { completion_command(program, *shell); });
  command.add_option("SHELL", *shell, "bash, zsh or fish")->type_name("")->required();
}

}  // namespace stoa::cli
