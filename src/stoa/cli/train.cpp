#include <CLI/CLI.hpp>
#include <charconv>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/text.h"
#include "stoa/cli/commands.h"
#include "stoa/cli/comparison.h"
#include "stoa/cli/recipe_file.h"
#include "stoa/dist/environment.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/trainer.h"

namespace fs = std::filesystem;

namespace stoa::cli {

namespace {

struct TrainArguments {
  std::string recipe;
  std::vector<std::string> set;
  std::string out;
  std::string resume;
  bool or_resume = false;
  std::optional<std::int64_t> step;
  std::optional<std::string> profile;  // "" where no number of steps is given
};

/// Steps that --profile is to record.
std::int64_t profile_steps(const std::string& text) {
  constexpr std::int64_t kDefault = 5;
  if (text.empty()) return kDefault;
  std::int64_t steps = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), steps);
  if (error != std::errc() || end != text.data() + text.size())
    throw ConfigError(format("--profile takes a number of steps, not `{}`; name the RECIPE before it", text));
  return steps;
}

TrainRequest request_of(const TrainArguments& arguments) {
  TrainRequest request;
  if (arguments.profile) request.profile = profile_steps(*arguments.profile);
  if (arguments.recipe.empty() && arguments.resume.empty())
    throw ConfigError("nothing to train: name a RECIPE, or a run to go on with (--resume RUN)");
  if (arguments.recipe.empty() && !arguments.set.empty())
    throw ConfigError(format(
        "--set changes a recipe and a resumed run keeps its own; to go on otherwise start a run from its "
        "weights: stoa train RECIPE --set initial.weights={}",
        arguments.resume));
  if (!arguments.resume.empty() && !arguments.out.empty())
    throw ConfigError("--resume goes on in the run's own folder; leave out --out");
  if (arguments.step && arguments.resume.empty())
    throw ConfigError("--step picks a checkpoint of the run to go on with; name it with --resume RUN");
  if (arguments.or_resume && (arguments.recipe.empty() || arguments.out.empty()))
    throw ConfigError(
        "--or-resume goes on with the run in the folder of --out if there is one; name RECIPE and --out");
  if (!arguments.recipe.empty()) request.recipe = open_recipe(arguments.recipe, arguments.set);
  const bool begun = arguments.or_resume && fs::exists(fs::path(arguments.out) / "recipe.toml");
  request.out = begun ? "" : arguments.out;
  request.resume = begun ? arguments.out : arguments.resume;
  request.resume_step = arguments.step;
  return request;
}

void train_command(const Program& program, const TrainArguments& arguments) {
  install_interrupt_handler();
  const TrainResult result = run_training(request_of(arguments), catalog());
  if (result.profile) {
    Json json = profile_json(*result.profile);
    json["run"] = result.run.string();
    print_result(program, json,
                 format("{}\nThis is {}; open trace.json beside it in ui.perfetto.dev.\n",
                        profile_text(*result.profile), (result.run / "profile" / "profile.txt").string()));
    return;
  }
  if (dist::read_place().rank != 0) return;  // rank 0 speaks for all
  const Json comparison = compare_rules(result.run);
  Json json = {{"run", result.run.string()}, {"steps", result.steps}, {"metrics", result.metrics.to_json()}};
  if (!comparison.empty()) json["comparison"] = comparison;
  print_result(program, json,
               format("{}\n{} steps: {}\n{}", result.run.string(), thousands(result.steps),
                      result.metrics.text(), comparison.empty() ? "" : "\n" + comparison_text(comparison)));
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
  command.add_flag(
      "--or-resume", arguments->or_resume,
      "go on where --out holds a run of this recipe already, else start it: one command line for "
      "both, as restarts need");
  command.add_option("--resume", arguments->resume, "go on with this run from its newest checkpoint")
      ->type_name("RUN");
  command
      .add_option("--step", arguments->step,
                  "with --resume: go on from the checkpoint of this step; later ones are removed")
      ->type_name("STEP");
  command
      .add_option(
          "--profile", arguments->profile,
          format("record STEPS steps (5 if not given) after {} others and end; where time and memory go is "
                 "printed and, with a trace for Perfetto, written to RUN/profile/",
                 kProfileWarmUp))
      ->type_name("[STEPS]")
      ->expected(0, 1);
}

}  // namespace stoa::cli
