#include "stoa/train/recipe.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"

namespace stoa {
namespace {

void require(bool holds, const char* key, const auto& value, const char* needed) {
  if (!holds) throw ConfigError(format("`{}` is {}; {}", key, value, needed));
}

/// A name that must be known before the other keys can be: the one at `key`, which has to be one of `known`.
std::string peek_name(const Config& config, const char* key, const std::vector<std::string>& known) {
  const Json* value = config.find(key);
  if (value == nullptr)
    throw ConfigError(format("{}: `{}` is missing; known: {}", config.name(), key, join(known, ", ")));
  if (!value->is_string())
    throw ConfigError(
        format("{}: `{}` is {}; text in quotes is needed", config.where(key), key, value->dump()));
  auto name = value->get<std::string>();
  if (std::ranges::find(known, name) == known.end())
    throw ConfigError(
        format("{}: `{}` is {}{}", config.where(key), key, to_toml_value(*value), suggestion(name, known)));
  return name;
}

const CatalogEntry& find_entry(const Config& config, const Catalog& catalog) {
  std::vector<std::string> tasks, models;
  for (const auto& entry : catalog)
    if (std::ranges::find(tasks, entry.task) == tasks.end()) tasks.push_back(entry.task);
  const std::string task = peek_name(config, "task.name", tasks);
  for (const auto& entry : catalog)
    if (entry.task == task) models.push_back(entry.model);
  const std::string model = peek_name(config, "model.name", models);
  return *std::ranges::find_if(catalog, [&](const auto& e) { return e.task == task && e.model == model; });
}

/// Where the first key of `config` that `message` names in backticks was written.
std::string where_of_named_key(const Config& config, const std::string& message) {
  for (std::size_t open = 0; (open = message.find('`', open)) != std::string::npos;) {
    const std::size_t close = message.find('`', open + 1);
    if (close == std::string::npos) break;
    const std::string key = message.substr(open + 1, close - open - 1);
    if (!key.empty() && config.find(key) != nullptr) return config.where(key);
    open = close + 1;
  }
  return config.name();
}

/// Where sequences are not to be padded further for their parts: the length has to be one that can be split.
void refuse_uneven_length(Recipe& recipe) {
  const auto& parallel = recipe.parallel;
  if (parallel.uneven == dist::UnevenLength::kPad || parallel.sequence == 1) return;
  const Json data = recipe.resolved()["data"];
  if (!data.contains("length")) return;  // a task whose sequences cannot be split says so itself
  const auto length = data["length"].get<std::int64_t>();
  const auto parts = static_cast<int>(parallel.sequence);
  const auto next = dist::padded_length(length, parallel.order, parts);
  if (next == length) return;
  const auto unit = dist::padded_length(1, parallel.order, parts);
  const auto better = next > unit ? format("{} or {}", next - unit, next) : format("{}", next);
  throw ConfigError(
      format("`data.length` is {}, which `parallel.sequence` = {} parts in {} order cannot share equally: a "
             "multiple of {} is needed, such as {}; or let `parallel.uneven` be \"pad\"",
             length, parts, dist::name_of(parallel.order), unit, better));
}

}  // namespace

void TrainOptions::visit(FieldVisitor& v) {
  v.field("steps", steps, "updates; 0 takes `epochs`");
  v.field("epochs", epochs, "passes over the training data, used where `steps` is 0");
  v.field("batch_size", batch_size, "samples per update");
  v.field("micro_batch_size", micro_batch_size,
          "samples per forward pass; less than the batch accumulates gradients and saves memory, 0 is the "
          "whole batch");
  v.field("seed", seed, "fixes weights, order, augmentation, dropout and noise");
  v.field("clip_norm", clip_norm, "gradients are scaled down to this norm; 0 does not clip");
  v.choice("clip", clip, {{"global", ClipKind::kGlobal}, {"tensor", ClipKind::kTensor}},
           "the norm that is clipped: of all gradients together, or of each tensor");
  v.field("ema", ema, "decay of the averaged weights that are evaluated, e.g. 0.999; 0 keeps none");
  v.field("log_every", log_every, "steps between lines of metrics.jsonl");
  v.field("eval_every", eval_every, "steps between evaluations; 0 evaluates once, at the end");
  v.field(
      "eval_batch_size", eval_batch_size,
      "samples per forward pass of an evaluation; matters only to models that look at a whole batch there "
      "(capacities in evaluation, expert choice)");
  v.field("workers", workers, "threads that prepare batches; 0 prepares them between the steps");
}

void TrainOptions::validate() const {
  require(steps >= 0, "train.steps", steps, "0 or more is needed");
  require(epochs >= 0 && std::isfinite(epochs), "train.epochs", epochs, "0 or more is needed");
  require(batch_size >= 1, "train.batch_size", batch_size, "at least 1 is needed");
  require(micro_batch_size >= 0, "train.micro_batch_size", micro_batch_size,
          "0 (the whole batch) or more is needed");
  require(clip_norm >= 0 && std::isfinite(clip_norm), "train.clip_norm", clip_norm,
          "0 (no clipping) or a positive norm is needed");
  require(ema >= 0 && ema < 1, "train.ema", ema, "at least 0 and less than 1 is needed, e.g. 0.999");
  require(log_every >= 1, "train.log_every", log_every, "at least 1 is needed");
  require(eval_every >= 0, "train.eval_every", eval_every, "0 (only at the end) or more is needed");
  require(eval_batch_size >= 1, "train.eval_batch_size", eval_batch_size, "at least 1 is needed");
  require(workers >= 0 && workers <= 1024, "train.workers", workers, "0 to 1024 threads are needed");
}

void CheckpointOptions::visit(FieldVisitor& v) {
  v.field("every", every, "steps between checkpoints; 0 writes one at the end (and on Ctrl-C)");
  v.field("keep_last", keep_last, "how many of the newest checkpoints are kept");
  v.field("keep_best", keep_best,
          "also keep the one with the best primary metric, of those written at a step that is evaluated");
}

void CheckpointOptions::validate() const {
  require(every >= 0, "checkpoint.every", every, "0 (only at the end) or more is needed");
  require(keep_last >= 1, "checkpoint.keep_last", keep_last,
          "at least 1 is needed, or the run could not go on");
}

void Recipe::visit(FieldVisitor& v) {
  v.field("title", title, "what tables and reports call the run");
  v.field("description", description, "what the recipe is for");
  // The names pick the TaskRecipe, which then lists the other keys of these three tables; opening a table a
  // second time goes on with it.
  v.enter("task", "what is learned");
  v.field("name", task_name, "name of the task; `stoa info` lists them");
  v.leave();
  v.enter("data", "what it is learned from");
  v.leave();
  v.enter("model", "what learns it");
  v.field("name", model_name, "name of the model");
  v.leave();
  if (task) task->visit(v);
  v.group("initial", initial, "the weights it starts from");
  v.group("optimizer", optimizer, "how weights are updated");
  v.group("schedule", schedule, "how the learning rate moves");
  v.group("train", train, "the training loop");
  v.group("checkpoint", checkpoint, "what is kept of a run");
  v.group("runtime", runtime, "where and how the arithmetic runs");
  v.group("parallel", parallel, "how several processes share the work; a process alone does all of it");
}

void Recipe::validate() const {
  if (task) task->validate();
  initial.validate();
  optimizer.validate();
  schedule.validate();
  train.validate();
  checkpoint.validate();
  runtime.validate();
  parallel.validate();
}

Json Recipe::resolved() {
  return write_options(*this);
}

Recipe read_recipe(const Config& config, const Catalog& catalog) {
  const CatalogEntry& entry = find_entry(config, catalog);
  Recipe recipe;
  recipe.task = entry.make();
  read_options(config, recipe);
  try {
    recipe.validate();
    refuse_uneven_length(recipe);
  } catch (const ConfigError& error) {
    throw ConfigError(format("{}: {}", where_of_named_key(config, error.what()), error.what()));
  }
  return recipe;
}

std::int64_t total_steps(const TrainOptions& options, std::int64_t samples) {
  if (options.steps > 0) return options.steps;
  if (options.epochs <= 0)
    throw ConfigError("the length of the training is not set; give `train.steps` or `train.epochs`");
  const double batches =
      options.epochs * static_cast<double>(samples) / static_cast<double>(options.batch_size);
  // 0.1 epochs of 1000 samples come to 100.00000000000001
  return std::max<std::int64_t>(1, std::llround(std::ceil(batches - 1e-9)));
}

}  // namespace stoa
