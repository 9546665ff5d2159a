#include "stoa/train/plan_model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "stoa/base/errors.h"
#include "stoa/nn/layer_split.h"
#include "stoa/nn/moe/mixture.h"
#include "stoa/nn/parameters.h"
#include "stoa/nn/weight_split.h"

namespace stoa {
namespace {

/// The number at a path of a resolved recipe, or `otherwise` where the model has no such key.
double number(const Json& recipe, std::initializer_list<const char*> path, double otherwise = 0) {
  const Json* at = &recipe;
  for (const char* key : path) {
    const auto found = at->find(key);
    if (found == at->end()) return otherwise;
    at = &*found;
  }
  return at->is_number() ? at->get<double>() : at->is_boolean() ? (at->get<bool>() ? 1 : 0) : otherwise;
}

bool is_block(std::string_view part) {
  for (const std::string_view name : {"attention", "perceptrons", "experts", "router"})
    if (part == name) return true;
  return false;
}

std::int64_t state_tensors(const optim::OptimizerOptions& options) {
  if (options.kind != optim::OptimizerKind::kSgd) return 2;
  return options.momentum != 0 ? 1 : 0;
}

void read_weights(const Recipe& recipe, Task& task, PlanModel& model) {
  for (const auto& parameter : nn::distinct_parameters(task.model())) {
    const auto size = static_cast<double>(parameter.tensor.numel());
    model.parameters += size;
    if (parameter.tensor.requires_grad()) model.learned += size;
  }
  for (const auto& buffer : nn::distinct_buffers(task.model()))
    model.parameters += static_cast<double>(buffer.tensor.numel());
  model.tables = static_cast<double>(task.sparse_bytes());
  model.states = state_tensors(recipe.optimizer);
  model.average = recipe.train.ema > 0;
}

/// Blocks of attention make 4 t d^2 + 2 t^2 d multiply-accumulates for t tokens of width d: how many tokens
/// a sample has follows from them, whatever it is (words, patches). Attention to so many projected rows makes
/// 2 t d of them for each.
std::int64_t tokens_of(double attention_macs, double depth, double width, double projected) {
  const double a = 2 * width, b = 4 * width * width, c = attention_macs / depth;
  if (projected > 0) return std::llround(c / (b + a * projected));
  return std::llround((std::sqrt(b * b + 4 * a * c) - b) / (2 * a));
}

void read_blocks(const Json& recipe, const nn::ModelDescription& description, PlanModel& model) {
  double block_parameters = 0, attention_parameters = 0, attention_macs = 0;
  for (const auto& part : description.parts) {
    if (part.name == "attention") {
      attention_parameters = static_cast<double>(part.parameters);
      attention_macs = static_cast<double>(part.macs);
    }
    if (is_block(part.name)) block_parameters += static_cast<double>(part.parameters);
  }
  const double width = number(recipe, {"model", "dim"}), depth = number(recipe, {"model", "depth"});
  if (attention_macs == 0 || width == 0 || depth == 0) return;  // not a transformer
  model.width = std::llround(width);
  model.depth = std::llround(depth);
  model.heads = std::llround(number(recipe, {"model", "heads"}, 1));
  model.projected = number(recipe, {"model", "linformer"});
  model.tokens = tokens_of(attention_macs, depth, width, model.projected);
  const auto t = static_cast<double>(model.tokens);
  model.attention_macs = depth * 2 * t * (model.projected > 0 ? model.projected : t) * width;
  model.block_learned = std::min(block_parameters, model.learned);
  model.shared = depth > 1 && attention_parameters < 1.5 * 4 * (width * width + width);
  model.recomputes = number(recipe, {"model", "recompute"}) != 0;
  model.can_recompute = recipe.at("model").contains("recompute");

  model.hidden = number(recipe, {"model", "mlp_dim"}, 4 * width);
}

/// Rows that a token has in a mixture. Experts that choose take what the capacity says; those that are chosen
/// have no more than that, and as many as there are where it is large enough.
double choices_of(const Json& router) {
  const double capacity = number(router, {"capacity_factor"}), top_k = number(router, {"top_k"}, 1);
  const auto routing = router.find("routing");
  if (routing != router.end() && *routing == "expert_choice") return capacity * top_k;
  return top_k * (capacity > 0 ? std::min(capacity, 1.0) : 1);
}

void read_mixtures(const Json& recipe, const nn::ModelDescription& description, PlanModel& model) {
  const auto part = [&](const char* name) {
    return std::ranges::find(description.parts, name, &nn::ModelPart::name);
  };
  const auto experts = part("experts"), router = part("router");
  const auto& keys = recipe.at("model");
  if (model.width == 0 || experts == description.parts.end() || router == description.parts.end() ||
      !keys.contains("router"))
    return;
  const double expert = number(keys, {"expert_dim"});
  if (expert > 0) model.hidden = expert;
  model.experts = std::llround(number(keys, {"router", "experts"}, 1));
  model.choices = choices_of(keys.at("router"));
  // each mixture's router is one product with as many columns as there are experts
  const auto tokens = static_cast<double>(model.tokens), width = static_cast<double>(model.width);
  model.mixtures =
      std::llround(static_cast<double>(router->macs) / (tokens * width * static_cast<double>(model.experts)));
  model.expert_learned = std::min(static_cast<double>(experts->parameters), model.block_learned);
  // all but its input, which a layer keeps whole, is by row
  const double routed = model.choices / number(keys, {"router", "top_k"}, 1);
  const double inputs = tokens * width * static_cast<double>(model.recomputes ? 1 : model.mixtures);
  const auto macs = static_cast<double>(experts->macs), kept = static_cast<double>(experts->activations);
  model.expert_macs = routed * macs;
  model.expert_kept = inputs + routed * (kept - inputs);
  model.macs += model.expert_macs - macs;
  model.kept += model.expert_kept - kept;
  model.block_kept += model.expert_kept - kept;
}

/// Work and kept numbers of all parts, less what a language model's head has for tokens that its loss does
/// not ask for.
void read_parts(const Json& recipe, const nn::ModelDescription& description, Task& task, PlanModel& model) {
  for (const auto& part : description.parts) {
    model.macs += static_cast<double>(part.macs);
    model.kept += static_cast<double>(part.activations);
    if (part.name == "layer norms" || is_block(part.name))
      model.block_kept += static_cast<double>(part.activations);
  }
  const auto head = std::ranges::find(description.parts, "token head", &nn::ModelPart::name);
  if (head == description.parts.end()) return;
  model.asked = number(recipe, {"data", "masking", "share"}, 1);
  const double whole = static_cast<double>(head->macs), kept = static_cast<double>(head->activations);
  model.macs -= (1 - model.asked) * whole;
  model.kept -= (1 - model.asked) * kept;
  for (const auto& parameter : nn::distinct_parameters(task.model())) {
    if (parameter.name != "word" || parameter.tensor.dim() != 2) continue;
    model.vocabulary = parameter.tensor.size(0);
    model.scores_learned = static_cast<double>(parameter.tensor.numel());
  }
}

double bytes_of(const Batch& batch) {
  double bytes = 0;
  for (const auto& [name, tensor] : batch.tensors) bytes += static_cast<double>(tensor.nbytes());
  return bytes;
}

/// The message of the ConfigError that `work` throws; empty where it throws none.
template <class Work>
std::string refusal(const Work& work) {
  try {
    work();
    return "";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

/// What dist::SplitWeights and dist::SplitLayers would say.
void read_splits(Task& task, PlanModel& model) {
  // an empty split splits nothing, and is refused where nothing could be split
  model.splits_sequences = refusal([&] { task.split_sequences({}); }).empty();
  std::vector<nn::SplitsWeights*> cut;
  for (const auto& module : task.model().modules()) {
    auto* const splits = dynamic_cast<nn::SplitsWeights*>(module.get());
    if (splits == nullptr) continue;
    cut.push_back(splits);
    if (dynamic_cast<nn::MixtureImpl*>(module.get()) != nullptr && !splits->cuts().empty())
      model.cuts_experts = true;
  }
  for (std::int64_t parts = 2; parts <= model.heads; ++parts) {
    const auto refused = cut.empty() ? "this model has no weights that can be split" : refusal([&] {
      for (auto* const splits : cut) splits->require_parts(parts);
    });
    if (!refused.empty()) model.refused_parts[parts] = refused;
  }
  auto* const layers = dynamic_cast<nn::SplitsLayers*>(&task.model());
  for (std::int64_t stages = 2; stages <= model.depth; ++stages) {
    const auto refused = layers == nullptr ? "this model has no layers that can be split"
                                           : refusal([&] { layers->require_stages(stages); });
    if (!refused.empty()) model.refused_stages[stages] = refused;
  }
}

}  // namespace

PlanModel plan_model(Recipe& recipe, Task& task) {
  PlanModel model;
  const Json resolved = recipe.resolved();
  const auto description = task.describe();
  read_weights(recipe, task, model);
  read_blocks(resolved, description, model);
  read_parts(resolved, description, task, model);
  read_mixtures(resolved, description, model);
  if (model.block_kept == 0) model.block_kept = model.kept;
  model.input_bytes = bytes_of(task.example(1));
  read_splits(task, model);
  model.batch = recipe.train.batch_size;
  model.micro_batch =
      recipe.train.micro_batch_size > 0 ? std::min(recipe.train.micro_batch_size, model.batch) : model.batch;
  model.workers = recipe.train.workers;
  model.parallel = recipe.parallel;
  return model;
}

}  // namespace stoa
