#include "stoa/train/initial.h"

#include <charconv>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/progress.h"
#include "stoa/base/text.h"
#include "stoa/nn/parameters.h"
#include "stoa/tensor/safetensors.h"
#include "stoa/train/checkpoint.h"
#include "stoa/train/run_folder.h"
#include "stoa/train/similar.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

/// The step that "last", "best" or a number names.
std::int64_t named_step(const CheckpointStore& store, const std::string& run, const std::string& name,
                        bool higher_is_better) {
  const auto steps = store.steps();
  if (steps.empty())
    throw ConfigError(format("{} has no checkpoint yet; go on with it: stoa train --resume {}", run, run));
  if (name == "last") return steps.back();
  if (name == "best") {
    if (const auto best = store.best(higher_is_better)) return *best;
    throw ConfigError(
        format("no checkpoint of {} was evaluated, so none is best; name \"last\" or a step", run));
  }
  std::int64_t step = 0;
  const char* const end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data(), end, step);
  if (error != std::errc() || rest != end)
    throw ConfigError(format("checkpoint \"{}\": \"last\", \"best\" or a step is needed", name));
  return step;
}

StoredWeights read_weights(const InitialOptions& options) {
  const fs::path path = options.weights;
  if (fs::is_directory(path)) return read_run_weights(path, options.checkpoint);
  if (!fs::exists(path)) {
    const std::string near = similar_path(path, [](const fs::path& p) {
      return p.extension() == ".safetensors" || fs::exists(p / "recipe.toml");
    });
    throw ConfigError(format("`initial.weights` is \"{}\", which does not exist{}", options.weights,
                             near.empty() ? "; name a run folder or a safetensors file" : near));
  }
  return {load_safetensors(path).tensors, {}, options.weights};
}

/// Puts the model's own values in the place of tensors whose names begin with one of `fresh`.
void keep_fresh(nn::Weights& weights, const nn::Weights& own, const std::vector<std::string>& fresh) {
  for (const std::string& name : fresh) {
    const auto begins = [&](const auto& item) {
      return item.first == name || item.first.starts_with(name + ".");
    };
    std::erase_if(weights, begins);
    bool any = false;
    for (const auto& item : own) {
      if (!begins(item)) continue;
      weights[item.first] = item.second;
      any = true;
    }
    if (any) continue;
    std::vector<std::string> parts;
    for (const auto& item : own)
      if (auto part = item.first.substr(0, item.first.find('.')); parts.empty() || parts.back() != part)
        parts.push_back(std::move(part));
    throw ConfigError(format("`initial.fresh` names \"{}\", which the model does not have{}", name,
                             suggestion(name, parts)));
  }
}

}  // namespace

void InitialOptions::visit(FieldVisitor& v) {
  v.field("weights", weights,
          "a run folder or a safetensors file to start from; empty draws all weights by the seed");
  v.field("checkpoint", checkpoint, "of a run folder: last, best or a step");
  v.field("fresh", fresh,
          "names, or their beginnings, of tensors that keep their drawn values, e.g. [\"head\"]");
  v.choice("tie", adapt.tie,
           {{"refuse", nn::Tying::kRefuse},
            {"average", nn::Tying::kAverage},
            {"first", nn::Tying::kFirst},
            {"interpolate", nn::Tying::kInterpolate}},
           "how layers that were trained apart become one that is shared; interpolate also between depths");
  v.field("upcycle", adapt.upcycle, "experts start as copies of the trained perceptron");
}

void InitialOptions::validate() const {
  if (weights.empty() && (!fresh.empty() || adapt.upcycle || adapt.tie != nn::Tying::kRefuse))
    throw ConfigError(
        format("`initial.{}` is set, but `initial.weights` is not; name a run folder or a safetensors file",
               !fresh.empty()  ? "fresh"
               : adapt.upcycle ? "upcycle"
                               : "tie"));
}

StoredWeights read_run_weights(const fs::path& run, const std::string& checkpoint) {
  const RunFolder folder = RunFolder::open(run);
  const CheckpointStore store(folder.checkpoints());
  const std::int64_t step =
      named_step(store, run.string(), checkpoint, folder.info().value("higher_is_better", true));
  const Checkpoint stored = store.load(step, /*weights_only=*/true);
  StoredWeights weights{stored.model, stored.sparse,
                        (folder.checkpoints() / format("step-{}", step)).string() + "/model.safetensors",
                        step};
  for (auto& [name, tensor] : weights.tensors)
    if (const auto average = stored.average.find(name); average != stored.average.end())
      tensor = average->second;
  return weights;
}

void load_initial(Task& task, const InitialOptions& options) {
  task.load_pretrained();
  if (options.weights.empty()) return;
  torch::nn::Module& model = task.model();
  auto [weights, sparse, source, step] = read_weights(options);
  const auto own = nn::module_state(model);
  keep_fresh(weights, own, options.fresh);
  if (const auto* adapts = dynamic_cast<const nn::AdaptsWeights*>(&model)) {
    try {
      weights = adapts->adapt(std::move(weights), options.adapt);
    } catch (const ConfigError& error) {
      throw ConfigError(format("{}: {}", source, error.what()));
    }
  }
  try {
    nn::load_module_state(model, weights, source);
  } catch (const DataError& error) {
    throw DataError(
        format("{}; tensors that are to keep their drawn values go into `initial.fresh`", error.what()));
  }
  if (task.sparse_weights() != nullptr && !sparse.empty()) task.sparse_weights()->start_from(sparse, source);
  log_info(format("starting from {}", source));
}

}  // namespace stoa
