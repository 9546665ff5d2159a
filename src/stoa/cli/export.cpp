#include <CLI/CLI.hpp>
#include <filesystem>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/text.h"
#include "stoa/cli/commands.h"
#include "stoa/cli/evaluate_run.h"
#include "stoa/cli/table.h"
#include "stoa/nn/parameters.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/checkpoint.h"

namespace fs = std::filesystem;

namespace stoa::cli {

namespace {

struct ExportArguments {
  std::string run, out;
  std::string checkpoint = "last";
  std::string form = "run";
  std::string tables;  // "fp32", "fp16", "int8"; empty where the model has none
  bool unmeasured = false;
};

nn::ServedType served_type(const std::string& name) {
  if (name == "fp16") return nn::ServedType::kHalf;
  return name == "int8" ? nn::ServedType::kInt8 : nn::ServedType::kFloat;
}

std::uintmax_t size_of(const fs::path& folder) {
  std::uintmax_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) bytes += entry.file_size();
  return bytes;
}

// Writes weights alone as a run folder that eval and predict read.
void write_export(LoadedRun& loaded, const ExportArguments& arguments) {
  RunFolder folder = RunFolder::create(arguments.out, loaded.recipe);
  try {
    Json info = loaded.folder.info();
    info["exported"] = {{"from", arguments.run}, {"step", loaded.step}, {"tables", arguments.tables}};
    folder.write_info(info);
    loaded.task->save_files(folder.files());
    Checkpoint checkpoint;
    checkpoint.step = loaded.step;
    checkpoint.model = nn::module_state(loaded.task->model());
    if (auto* sparse = loaded.task->sparse_weights()) checkpoint.sparse = sparse->state();
    CheckpointStore(folder.checkpoints()).save(checkpoint, {}, std::nullopt, true);
  } catch (...) {
    folder.abandon();
    throw;
  }
}

/// Writes the model as Hugging Face's libraries keep it: whole, or not at all.
void export_pretrained(const Program& program, const ExportArguments& arguments) {
  const fs::path out = arguments.out;
  if (fs::exists(out)) throw ConfigError(format("{} exists already; name a new folder", out.string()));
  LoadedRun loaded = load_run(arguments.run, catalog(), arguments.checkpoint, false);
  const fs::path part = out.parent_path() / format(".{}.part", out.filename().string());
  std::error_code code;
  fs::remove_all(part, code);
  fs::create_directories(part, code);
  if (code) throw IoError(format("cannot make the folder {}: {}", part.string(), code.message()));
  try {
    loaded.task->save_pretrained(part);
    fs::rename(part, out, code);
    if (code)
      throw IoError(format("cannot rename {} to {}: {}", part.string(), out.string(), code.message()));
  } catch (...) {
    fs::remove_all(part, code);
    throw;
  }
  const auto size = size_of(out);
  print_result(program,
               {{"run", arguments.run}, {"out", arguments.out}, {"step", loaded.step}, {"bytes", size}},
               format("{}: step {}, {}, in Hugging Face's form\n", arguments.out, thousands(loaded.step),
                      bytes(static_cast<double>(size))));
}

void export_command(const Program& program, const ExportArguments& arguments) {
  install_interrupt_handler();
  LoadedRun loaded = load_run(arguments.run, catalog(), arguments.checkpoint, !arguments.unmeasured);
  auto* const sparse = loaded.task->sparse_weights();
  if (sparse == nullptr && !arguments.tables.empty())
    throw ConfigError(
        format("{}: --tables is for models with embedding tables; this one has none", arguments.run));
  std::optional<Evaluation> before, after;
  if (!arguments.unmeasured) before = evaluate_run(loaded);
  if (sparse != nullptr) {
    sparse->serve(served_type(arguments.tables));
    if (!arguments.unmeasured) after = evaluate_run(loaded);
  }
  write_export(loaded, arguments);

  Json json = {{"run", arguments.run},
               {"out", arguments.out},
               {"step", loaded.step},
               {"bytes", size_of(arguments.out)}};
  std::string text = format("{}: step {}, {}\n", arguments.out, thousands(loaded.step),
                            bytes(static_cast<double>(size_of(arguments.out))));
  if (before) {
    const Metrics& then = before->metrics;
    const Metrics& now = after ? after->metrics : then;
    json["before"] = then.to_json();
    json["after"] = now.to_json();
    std::vector<std::vector<std::string>> rows = {{"metric", "run", "export", "change"}};
    for (const auto& [name, value] : then.items())
      rows.push_back(
          {name, format("{:.6f}", value), format("{:.6f}", now[name]), format("{:+.6f}", now[name] - value)});
    text += "\n" + text_table(rows);
  }
  print_result(program, json, text);
}

}  // namespace

void add_export(Program& program) {
  const auto arguments = std::make_shared<ExportArguments>();
  CLI::App& command =
      add_command(program, "export", "a run's weights alone, as small as they go, for eval and predict",
                  "stoa export runs/criteo-0 --out served --tables int8", [&program, arguments] {
                    arguments->form == "run" ? export_command(program, *arguments)
                                             : export_pretrained(program, *arguments);
                  });
  command.add_option("RUN", arguments->run, "folder of a run")->type_name("")->required();
  command.add_option("--out", arguments->out, "folder to make")->type_name("DIR")->required();
  command.add_option("--checkpoint", arguments->checkpoint, "last, best, or a step; last if not given")
      ->type_name("CHECKPOINT");
  set_words(*command.add_option(
                "--form", arguments->form,
                "a run folder, or config.json, safetensors and tokenizer for other programs; run if "
                "not given"),
            {"run", "hugging_face"});
  set_words(*command.add_option("--tables", arguments->tables,
                                "what embedding tables are kept in; fp32 if not given"),
            {"fp32", "fp16", "int8"});
  command.add_flag("--no-measure", arguments->unmeasured,
                   "do not measure what it costs on the evaluation data");
}

}  // namespace stoa::cli
