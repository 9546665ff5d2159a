#include <CLI/CLI.hpp>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/progress.h"
#include "stoa/base/text.h"
#include "stoa/cli/commands.h"
#include "stoa/cli/evaluate_run.h"
#include "stoa/cli/one_process.h"
#include "stoa/cli/table.h"
#include "stoa/nn/moe/mixture.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/trainer.h"

namespace fs = std::filesystem;

namespace stoa::cli {

namespace {

struct EvalArguments {
  std::string run;
  std::string checkpoint = "last";
  bool int8 = false;
  std::string examples, predictions;  // folders
  std::int64_t count = 5;
};

EvaluateOptions evaluate_options(const LoadedRun& loaded) {
  EvaluateOptions options;
  options.batch_size = loaded.recipe.train.eval_batch_size;
  options.workers = static_cast<int>(loaded.recipe.train.workers);
  return options;
}

}  // namespace

Evaluation evaluate_run(LoadedRun& loaded) {
  std::optional<Progress> progress;  // the first call, before the first batch, tells the number of samples
  EvaluateOptions options = evaluate_options(loaded);
  options.exhibits = true;
  options.progress = [&](std::int64_t done, std::int64_t total) {
    if (interrupted()) throw Interrupted("interrupted; nothing was written");
    if (!progress) progress.emplace("evaluating", "samples", total);
    progress->update(done);
  };
  const AutocastScope autocast(loaded.runtime);
  Evaluation evaluation = loaded.task->evaluate(options);
  if (progress) progress->finish();
  return evaluation;
}

namespace {

std::string text_of(const LoadedRun& loaded, const Metrics& metrics, const InferenceSpeed& speed) {
  std::vector<std::vector<std::string>> rows = {{"metric", "value"}};
  for (const auto& [name, value] : metrics.items()) rows.push_back({name, format("{:.4f}", value)});
  rows.push_back({"samples per second", format("{:.1f}", speed.samples_per_second)});
  rows.push_back({"latency of one sample (ms)", format("{:.2f}", speed.latency_ms)});
  return format("{}, step {}\n\n{}", loaded.folder.path().string(), thousands(loaded.step), text_table(rows));
}

// Reports and experiments take evaluation.json for the run as it stands, which is its newest checkpoint.
void keep_evaluation(const LoadedRun& loaded, const Evaluation& evaluation, const InferenceSpeed& speed) {
  const fs::path& run = loaded.folder.path();
  const std::int64_t newest = CheckpointStore(loaded.folder.checkpoints()).steps().back();
  if (loaded.step == newest) return write_evaluation(run, evaluation, speed, loaded.step);
  log_info(format("{} stays as it is: it is about the newest checkpoint, step {}",
                  (run / "evaluation.json").string(), thousands(newest)));
}

void save_predictions(LoadedRun& loaded, const std::string& folder) {
  const AutocastScope autocast(loaded.runtime);
  const auto files = loaded.task->save_predictions(folder, evaluate_options(loaded));
  if (files.empty())
    throw ConfigError(format("--save-predictions: the task {} has no form for predictions of test data",
                             loaded.recipe.task_name));
  for (const auto& file : files) log_info(format("wrote {}", file));
}

void eval_command(const Program& program, const EvalArguments& arguments) {
  require_one_process("eval");
  if (arguments.count < 1)
    throw ConfigError(format("--count is {}; at least 1 example is needed", arguments.count));
  install_interrupt_handler();
  LoadedRun loaded = load_run(arguments.run, catalog(), arguments.checkpoint, true);
  if (arguments.int8) nn::round_experts_to_int8(loaded.task->model());
  if (!arguments.examples.empty()) loaded.task->save_examples(arguments.examples, arguments.count);
  if (!arguments.predictions.empty()) save_predictions(loaded, arguments.predictions);
  const Evaluation evaluation = evaluate_run(loaded);
  const InferenceSpeed speed =
      measure_inference(*loaded.task, loaded.runtime, loaded.recipe.train.eval_batch_size);
  if (!arguments.int8) keep_evaluation(loaded, evaluation, speed);
  const Json json = {
      {"run", arguments.run},
      {"step", loaded.step},
      {"metrics", evaluation.metrics.to_json()},
      {"speed", {{"samples_per_second", speed.samples_per_second}, {"latency_ms", speed.latency_ms}}}};
  print_result(program, json, text_of(loaded, evaluation.metrics, speed));
}

}  // namespace

void add_eval(Program& program) {
  const auto arguments = std::make_shared<EvalArguments>();
  CLI::App& command = add_command(program, "eval", "measure a run's model on the evaluation data",
                                  "stoa eval runs/fashion_mnist-0 --checkpoint best",
                                  [&program, arguments] { eval_command(program, *arguments); });
  command.add_option("RUN", arguments->run, "folder of a run")->type_name("")->required();
  command
      .add_option("--checkpoint", arguments->checkpoint,
                  "last, best, or a step; last if not given. RUN/evaluation.json, which reports show, is "
                  "written for the newest checkpoint only")
      ->type_name("CHECKPOINT");
  command.add_flag("--int8", arguments->int8,
                   "experts in 8 bits (needs AVX512-VNNI or AMX); RUN/evaluation.json stays as it is");
  command
      .add_option("--save-examples", arguments->examples,
                  "also write evaluation inputs as files for `stoa predict`")
      ->type_name("DIR");
  command
      .add_option("--save-predictions", arguments->predictions,
                  "also write the answers to the test data as benchmarks want them handed in")
      ->type_name("DIR");
  command.add_option("--count", arguments->count, "how many of them; 5 if not given")->type_name("N");
}

}  // namespace stoa::cli
