#include <CLI/CLI.hpp>

#include "stoa/cli/commands.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/trainer.h"

namespace stoa::cli {

namespace {

struct PredictArguments {
  std::string run;
  std::vector<std::string> files;
  std::string checkpoint = "last";
};

void predict_command(const Program& program, const PredictArguments& arguments) {
  LoadedRun loaded = load_run(arguments.run, catalog(), arguments.checkpoint, false);
  const AutocastScope autocast(loaded.runtime);
  const std::vector<Prediction> predictions = loaded.task->predict(arguments.files);
  Json list = Json::array();
  std::string text;
  for (std::size_t i = 0; i < predictions.size(); ++i) {
    Json item = {{"file", arguments.files.at(i)}};
    item.update(predictions[i].json);
    list.push_back(std::move(item));
    text += predictions[i].text;
    if (!text.ends_with('\n')) text += '\n';
  }
  print_result(program, {{"predictions", std::move(list)}}, text);
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
}

}  // namespace stoa::cli
