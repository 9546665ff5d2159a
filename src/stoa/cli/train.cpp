#include <CLI/CLI.hpp>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/text.h"
#include "stoa/cli/commands.h"
#include "stoa/cli/recipe_file.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/trainer.h"

namespace stoa::cli {

namespace {

struct TrainArguments {
  std::string recipe;
  std::vector<std::string> set;
  std::string out;
  std::string resume;
  std::optional<std::int64_t> step;
};

TrainRequest request_of(const TrainArguments& arguments) {
  if (arguments.recipe.empty() && arguments.resume.empty())
    throw ConfigError("nothing to train: name a RECIPE, or a run to go on with (--resume RUN)");
  if (arguments.recipe.empty() && !arguments.set.empty())
    throw ConfigError(
        "--set changes a recipe and a resumed run keeps its own; name a RECIPE to start a run from");
  if (!arguments.resume.empty() && !arguments.out.empty())
    throw ConfigError("--resume goes on in the run's own folder; leave out --out");
  if (arguments.step && arguments.resume.empty())
    throw ConfigError("--step picks a checkpoint of the run to go on with; name it with --resume RUN");
  TrainRequest request;
  if (!arguments.recipe.empty()) request.recipe = open_recipe(arguments.recipe, arguments.set);
  request.out = arguments.out;
  request.resume = arguments.resume;
  request.resume_step = arguments.step;
  return request;
}

void train_command(const Program& program, const TrainArguments& arguments) {
  install_interrupt_handler();
  const TrainResult result = run_training(request_of(arguments), catalog());
  const Json json = {
      {"run", result.run.string()}, {"steps", result.steps}, {"metrics", result.metrics.to_json()}};
  print_result(
      program, json,
      format("{}\n{} steps: {}\n", result.run.string(), thousands(result.steps), result.metrics.text()));
}

}  // namespace

void add_train(Program& program) {
  const auto arguments = std::make_shared<TrainArguments>();
  CLI::App& command =
      add_command(program, "train", "train a model as a recipe says, or go on with a run",
                  "stoa train recipes/wide_net/fashion_mnist.toml --set train.epochs=3 --out runs/first",
                  [&program, arguments] { train_command(program, *arguments); });
  command.add_option("RECIPE", arguments->recipe, "recipe (.toml)")->type_name("");
  add_set_option(command, arguments->set);
  command.add_option("--out", arguments->out, "folder of the new run; runs/NAME-SEED if not given")
      ->type_name("DIR");
  command.add_option("--resume", arguments->resume, "go on with this run from its newest checkpoint")
      ->type_name("RUN");
  command.add_option("--step", arguments->step, "the checkpoint to go on from")->type_name("STEP");
}

}  // namespace stoa::cli
