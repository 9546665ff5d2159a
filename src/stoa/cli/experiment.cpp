#include "stoa/train/experiment.h"

#include <CLI/CLI.hpp>

#include "stoa/base/files.h"
#include "stoa/base/interrupt.h"
#include "stoa/cli/commands.h"
#include "stoa/cli/recipe_file.h"
#include "stoa/systems/catalog.h"

namespace fs = std::filesystem;

namespace stoa::cli {

namespace {

struct ExperimentArguments {
  std::string file;
  std::string out;
  std::string pages;
};

void experiment_command(const Program& program, const ExperimentArguments& arguments) {
  install_interrupt_handler();
  const fs::path file = arguments.file;
  if (!fs::is_regular_file(file))
    throw missing_toml(file, "experiment", "; the project's own lie in experiments/");
  const std::string name = file.stem().string();
  const fs::path out = arguments.out.empty() ? fs::path("runs") / name : fs::path(arguments.out);
  const fs::path pages = arguments.pages.empty() ? file.parent_path() : fs::path(arguments.pages);
  const Json table = run_experiment(file, out, pages, catalog());
  print_result(program, table, program.json ? "" : read_file(pages / (name + ".md")));
}

}  // namespace

void add_experiment(Program& program) {
  const auto arguments = std::make_shared<ExperimentArguments>();
  CLI::App& command =
      add_command(program, "experiment", "run a table of recipes, overrides and seeds, and write its page",
                  "stoa experiment experiments/wide_net_fashion_mnist.toml --out runs/table",
                  [&program, arguments] { experiment_command(program, *arguments); });
  command.add_option("EXPERIMENT", arguments->file, "experiment (.toml)")->type_name("")->required();
  command.add_option("--out", arguments->out, "folder of the runs; runs/NAME if not given")->type_name("DIR");
  command
      .add_option("--pages", arguments->pages,
                  "folder of NAME.md and NAME.html; beside the experiment if not given")
      ->type_name("DIR");
}

}  // namespace stoa::cli
