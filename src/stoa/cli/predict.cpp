#include <CLI/CLI.hpp>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/cli/commands.h"
#include "stoa/cli/one_process.h"
#include "stoa/cli/table.h"
#include "stoa/nn/moe/mixture.h"
#include "stoa/ops/keep_packed.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/trainer.h"

namespace stoa::cli {

namespace {

struct PredictArguments {
  std::string run;
  std::vector<std::int64_t> latency;  // sizes of batches to time
  std::vector<std::string> files;
  std::vector<std::string> set;  // of the table [task]
  std::string checkpoint = "last";
  bool int8 = false;
};

/// What is said of the task may change how it answers; anything else is what the run was trained with.
void check_set(const std::vector<std::string>& set) {
  for (const auto& assignment : set)
    if (!assignment.starts_with("task."))
      throw ConfigError(
          format("--set {}: a run keeps its recipe; only keys of [task] can be set here", assignment));
}

void predict_command(const Program& program, const PredictArguments& arguments) {
  check_set(arguments.set);
  LoadedRun loaded = load_run(arguments.run, catalog(), arguments.checkpoint, false, arguments.set);
  if (arguments.int8) nn::round_experts_to_int8(loaded.task->model());
  const AutocastScope autocast(loaded.runtime);
  const ops::KeepPacked keep_packed;
  Json list = Json::array();
  std::string text;
  std::vector<std::string> refusals;
  for (const std::string& file : arguments.files) {  // one by one: a bad file takes no other's answer away
    list.push_back({{"file", file}});
    try {
      const Prediction prediction = loaded.task->predict({&file, 1}).at(0);
      list.back().update(prediction.json);
      text += prediction.text;
      if (!text.ends_with('\n')) text += '\n';
    } catch (const DataError& error) {
      list.back()["error"] = refusals.emplace_back(error.what());
    } catch (const IoError& error) {
      list.back()["error"] = refusals.emplace_back(error.what());
    }
  }
  if (refusals.size() < arguments.files.size()) print_result(program, {{"predictions", list}}, text);
  if (!refusals.empty()) throw DataError(join(refusals, "; "));
}

void latency_command(const Program& program, const PredictArguments& arguments) {
  LoadedRun loaded = load_run(arguments.run, catalog(), arguments.checkpoint, false);
  if (arguments.int8) nn::round_experts_to_int8(loaded.task->model());
  Json list = Json::array();
  std::vector<std::vector<std::string>> rows = {{"samples", "p50 (ms)", "p99 (ms)", "passes"}};
  for (const auto& found : measure_latency(*loaded.task, loaded.runtime, arguments.latency)) {
    list.push_back({{"samples", found.samples},
                    {"p50_ms", found.p50_ms},
                    {"p99_ms", found.p99_ms},
                    {"passes", found.passes}});
    rows.push_back({thousands(found.samples), format("{:.3f}", found.p50_ms), format("{:.3f}", found.p99_ms),
                    thousands(found.passes)});
  }
  print_result(program, {{"run", arguments.run}, {"latency", list}}, text_table(rows));
}

}  // namespace

void add_predict(Program& program) {
  const auto arguments = std::make_shared<PredictArguments>();
  CLI::App& command =
      add_command(program, "predict", "what a run's model says about files",
                  "stoa predict runs/fashion_mnist-0 shirt.png shoe.jpg --json", [&program, arguments] {
                    require_one_process("predict");
                    if (arguments->files.empty() && arguments->latency.empty())
                      throw ConfigError("nothing to answer for: name files, or sizes with --latency");
                    if (!arguments->files.empty()) predict_command(program, *arguments);
                    if (!arguments->latency.empty()) latency_command(program, *arguments);
                  });
  command.add_option("RUN", arguments->run, "folder of a run")->type_name("")->required();
  command
      .add_option(
          "FILE", arguments->files,
          "what to answer for: files with an image or with a row a line (- is the standard input), or text")
      ->type_name("");
  add_set_option(command, arguments->set)
      ->description("change a key of the recipe's [task]; may be repeated");
  command.add_option("--checkpoint", arguments->checkpoint, "last, best, or a step; last if not given")
      ->type_name("CHECKPOINT");
  command
      .add_option("--latency", arguments->latency,
                  "time passes over so many samples at once, e.g. 1,100,1000: the median and the 99th of 100")
      ->type_name("N,...")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  command.add_flag("--int8", arguments->int8, "experts in 8 bits (needs AVX512-VNNI or AMX)");
}

}  // namespace stoa::cli
