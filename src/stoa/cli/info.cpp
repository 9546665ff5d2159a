#include <CLI/CLI.hpp>
#include <filesystem>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/cli/commands.h"
#include "stoa/cli/recipe_file.h"
#include "stoa/cli/table.h"
#include "stoa/nn/parameters.h"
#include "stoa/optim/scaling.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/checkpoint.h"
#include "stoa/train/run_folder.h"

namespace fs = std::filesystem;

namespace stoa::cli {

namespace {

struct InfoArguments {
  std::string source;
  std::vector<std::string> set;
  std::int64_t scale_from = 0;  // batch that the recipe's settings are for; 0: no scaling is asked for
  std::int64_t batch = 0;       // 0: the recipe's
  std::string rule;             // empty: cowclip
};

using Rows = std::vector<std::vector<std::string>>;

// What training holds in memory, in bytes. Buffers of single operators are not counted.
struct MemoryEstimate {
  double weights = 0, gradients = 0, optimizer = 0, average = 0, sparse = 0, activations = 0;
  std::int64_t batch_size = 0;
  bool bf16 = false;

  double total() const { return weights + gradients + optimizer + average + sparse + activations; }
};

// State tensors an optimiser keeps for each parameter.
int state_tensors(const optim::OptimizerOptions& options) {
  if (options.kind != optim::OptimizerKind::kSgd) return 2;
  return options.momentum != 0 ? 1 : 0;
}

MemoryEstimate estimate_memory(const Recipe& recipe, Task& task, const nn::ModelDescription& description) {
  const torch::nn::Module& model = task.model();
  MemoryEstimate memory;
  memory.sparse = static_cast<double>(task.sparse_bytes());
  for (const nn::NamedParameter& parameter : nn::distinct_parameters(model)) {
    const auto size = static_cast<double>(parameter.tensor.nbytes());
    memory.weights += size;
    if (parameter.tensor.requires_grad()) memory.gradients += size;
  }
  memory.optimizer = memory.gradients * state_tensors(recipe.optimizer);
  for (const nn::NamedParameter& buffer : nn::distinct_buffers(model))
    memory.weights += static_cast<double>(buffer.tensor.nbytes());
  if (recipe.train.ema > 0) memory.average = memory.weights;
  const Precision precision = recipe.runtime.precision;
  memory.bf16 = precision == Precision::kBf16 || (precision == Precision::kAuto && cpu_has_bf16());
  const std::int64_t micro = recipe.train.micro_batch_size;
  memory.batch_size = micro > 0 ? micro : recipe.train.batch_size;
  memory.activations = static_cast<double>(description.activations()) *
                       static_cast<double>(memory.batch_size) * (memory.bf16 ? 2 : 4);
  return memory;
}

double share(std::int64_t part, std::int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

Json parts_json(const nn::ModelDescription& description) {
  Json parts = Json::array();
  for (const nn::ModelPart& part : description.parts)
    parts.push_back({{"name", part.name},
                     {"parameters", part.parameters},
                     {"share", share(part.parameters, description.parameters())},
                     {"macs", part.macs},
                     {"activations", part.activations}});
  return parts;
}

Json memory_json(const MemoryEstimate& memory) {
  const auto whole = [](double count) { return static_cast<std::int64_t>(count); };
  return {{"weights", whole(memory.weights)},
          {"gradients", whole(memory.gradients)},
          {"optimizer", whole(memory.optimizer)},
          {"average", whole(memory.average)},
          {"tables", whole(memory.sparse)},
          {"activations", whole(memory.activations)},
          {"total", whole(memory.total())},
          {"batch_size", memory.batch_size},
          {"bf16", memory.bf16}};
}

std::string parts_text(const nn::ModelDescription& description) {
  const std::int64_t parameters = description.parameters(), macs = description.macs();
  Rows rows = {{"part", "parameters", "share", "MACs a sample", "share"}};
  for (const nn::ModelPart& part : description.parts)
    rows.push_back({part.name, thousands(part.parameters),
                    format("{:.1f} %", 100 * share(part.parameters, parameters)), thousands(part.macs),
                    format("{:.1f} %", 100 * share(part.macs, macs))});
  rows.push_back({});
  rows.push_back({"total", thousands(parameters), "", thousands(macs), ""});
  return text_table(rows);
}

std::string memory_text(const MemoryEstimate& memory) {
  Rows rows = {{"memory of training", "estimate"},
               {"weights", bytes(memory.weights)},
               {"gradients", bytes(memory.gradients)}};
  if (memory.optimizer > 0) rows.push_back({"optimizer", bytes(memory.optimizer)});
  if (memory.sparse > 0) rows.push_back({"tables with their moments", bytes(memory.sparse)});
  if (memory.average > 0) rows.push_back({"averaged weights", bytes(memory.average)});
  rows.push_back({format("activations of {} {} in {}", thousands(memory.batch_size),
                         memory.batch_size == 1 ? "sample" : "samples", memory.bf16 ? "bf16" : "fp32"),
                  bytes(memory.activations)});
  rows.push_back({});
  rows.push_back({"total", bytes(memory.total())});
  return text_table(rows);
}

// The recipe of a file or of a run, and what the run adds to the answer.
struct Source {
  Config config;
  Json run;       // what --json adds for a run; null for a recipe
  Json metadata;  // of the run's data; null for a recipe
};

Source open_source(const InfoArguments& arguments) {
  const fs::path path = arguments.source;
  if (!fs::is_directory(path)) return {open_recipe(path, arguments.set), nullptr, nullptr};
  if (!arguments.set.empty())
    throw ConfigError("--set changes a recipe and a run keeps its own; name a recipe");
  const RunFolder folder = RunFolder::open(path);
  const Json info = folder.info();
  const Json run = {{"run", path.string()}, {"checkpoints", CheckpointStore(folder.checkpoints()).steps()}};
  return {folder.recipe(), run, info.contains("metadata") ? info["metadata"] : Json(nullptr)};
}

void describe_source(const Program& program, const InfoArguments& arguments) {
  const Source source = open_source(arguments);
  const Recipe recipe = read_recipe(source.config, catalog());
  const std::unique_ptr<Task> task = recipe.task->build({false, source.metadata});
  const nn::ModelDescription description = task->describe();
  const MemoryEstimate memory = estimate_memory(recipe, *task, description);

  Json json = {{"name", arguments.source},
               {"title", recipe.title},
               {"task", recipe.task_name},
               {"model", recipe.model_name},
               {"input", description.input},
               {"parameters", description.parameters()},
               {"dense_parameters", nn::count_parameters(task->model())},
               {"macs", description.macs()},
               {"parts", parts_json(description)},
               {"memory", memory_json(memory)}};
  std::string text = format("{}: {} with {}, input {}\n", arguments.source, recipe.task_name,
                            recipe.model_name, description.input);
  if (!recipe.title.empty()) text += recipe.title + "\n";
  if (!source.run.is_null()) {
    json.update(source.run);
    text += format("checkpoints at steps: {}\n", source.run["checkpoints"].dump());
  }
  text += "\n" + parts_text(description) + "\n" + memory_text(memory);
  print_result(program, json, text);
}

// What the recipe's settings become at another batch.
void scale_settings(const Program& program, const InfoArguments& arguments) {
  const Source source = open_source(arguments);
  Recipe recipe = read_recipe(source.config, catalog());
  const Json all = recipe.resolved();
  if (!all.contains("embedding"))
    throw ConfigError(
        format("{}: --scale-from is for recipes with embedding tables; this one has none", arguments.source));
  const std::int64_t batch = arguments.batch > 0 ? arguments.batch : recipe.train.batch_size;
  const optim::BatchSettings base{arguments.scale_from, all["embedding"]["lr"], recipe.optimizer.lr,
                                  all["embedding"]["l2"]};
  const std::string name = arguments.rule.empty() ? "cowclip" : arguments.rule;
  const auto rule = optim::scaling_rule(name);
  const auto scaled = optim::scale_batch(base, batch, rule);
  const Json json = {{"name", arguments.source},    {"rule", name},
                     {"batch", scaled.batch},       {"embedding_lr", scaled.embedding_lr},
                     {"dense_lr", scaled.dense_lr}, {"l2", scaled.l2}};
  print_result(program, json, optim::scaling_text(base, batch, rule));
}

void list_systems(const Program& program) {
  Json systems = Json::array();
  std::string text = "Pairs that a recipe can name as `task.name` and `model.name`:\n\n";
  for (const CatalogEntry& entry : catalog()) {
    systems.push_back({{"task", entry.task}, {"model", entry.model}, {"summary", entry.summary}});
    text += format("  {} with {}\n      {}\n", entry.task, entry.model, entry.summary);
  }
  text += "\nTheir keys: stoa options TASK MODEL\n";
  print_result(program, {{"systems", systems}}, text);
}

void info_command(const Program& program, const InfoArguments& arguments) {
  if (arguments.source.empty() && !arguments.set.empty())
    throw ConfigError("--set changes a recipe; name one: stoa info RECIPE --set KEY=VALUE");
  const bool scaling = arguments.scale_from != 0;
  if (!scaling && (arguments.batch != 0 || !arguments.rule.empty()))
    throw ConfigError(
        "--batch and --rule go with --scale-from, the batch that the recipe's settings are for");
  if (scaling && arguments.source.empty())
    throw ConfigError(
        "--scale-from changes a recipe's settings; name one: stoa info RECIPE --scale-from 1024");
  if (arguments.source.empty()) return list_systems(program);
  if (scaling) return scale_settings(program, arguments);
  describe_source(program, arguments);
}

}  // namespace

void add_info(Program& program) {
  const auto arguments = std::make_shared<InfoArguments>();
  CLI::App& command = add_command(
      program, "info", "size of a recipe's or a run's model; without argument, the list of systems",
      "stoa info recipes/wide_net/widenet_b.toml --set train.batch_size=32",
      [&program, arguments] { info_command(program, *arguments); });
  command.add_option("RECIPE|RUN", arguments->source, "recipe (.toml) or folder of a run")->type_name("");
  add_set_option(command, arguments->set);
  command
      .add_option("--scale-from", arguments->scale_from,
                  "show what the settings, which are for this batch, become at another one")
      ->type_name("BATCH")
      ->check(CLI::PositiveNumber);
  command.add_option("--batch", arguments->batch, "that other batch; train.batch_size if not given")
      ->type_name("BATCH")
      ->check(CLI::PositiveNumber);
  command
      .add_option("--rule", arguments->rule,
                  "none, sqrt, sqrt_star, linear, n2_lambda or cowclip; cowclip if not given")
      ->type_name("RULE");
}

}  // namespace stoa::cli
