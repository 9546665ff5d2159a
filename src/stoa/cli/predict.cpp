#include <CLI/CLI.hpp>

#include "stoa/base/errors.h"
#include "stoa/base/text.h"
#include "stoa/cli/commands.h"
#include "stoa/nn/moe/mixture.h"
#include "stoa/ops/keep_packed.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/trainer.h"

namespace stoa::cli {

namespace {

struct PredictArguments {
  std::string run;
  std::vector<std::string> files;
  std::string checkpoint = "last";
  bool int8 = false;
};

void predict_command(const Program& program, const PredictArguments& arguments) {
  LoadedRun loaded = load_run(arguments.run, catalog(), arguments.checkpoint, false);
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

}  // namespace

void add_predict(Program& program) {
  const auto arguments = std::make_shared<PredictArguments>();
  CLI::App& command = add_command(program, "predict", "what a run's model says about files",
                                  "stoa predict runs/fashion_mnist-0 shirt.png shoe.jpg --json",
                                  [&program, arguments] { predict_command(program, *arguments); });
  command.add_option("RUN", arguments->run, "folder of a run")->type_name("")->required();
  command.add_option("FILE", arguments->files, "files to answer for (JPEG or PNG for images)")
      ->type_name("")
      ->required();
  command.add_option("--checkpoint", arguments->checkpoint, "last, best, or a step; last if not given")
      ->type_name("CHECKPOINT");
  command.add_flag("--int8", arguments->int8, "experts in 8 bits (needs AVX512-VNNI or AMX)");
}

}  // namespace stoa::cli
