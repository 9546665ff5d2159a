#include "stoa/train/plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"

namespace stoa {
namespace {

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

/// What the search may choose from, beside the degrees.
std::vector<Split> settings(const PlanModel& model, Split split) {
  std::vector<Split> all;
  const std::int64_t share = ceil_divide(model.batch, split.data);
  const std::int64_t ranks = split.data * split.sequence;
  for (const bool recompute : {model.recomputes, true}) {
    if (recompute && !model.recomputes && !model.can_recompute) break;
    for (std::int64_t zero = 0; zero <= (ranks > 1 ? 3 : 0); ++zero)
      for (std::int64_t pieces = 1;; pieces *= 2) {
        const std::int64_t micro = std::min(ceil_divide(share, pieces), model.micro_batch);
        Split choice = split;
        choice.zero = zero;
        choice.recompute = recompute;
        choice.micro_batch = micro;
        if (all.empty() || !(all.back() == choice)) all.push_back(choice);
        if (micro == 1) break;
      }
    if (model.recomputes) break;
  }
  return all;
}

/// Whether the model can be split so.
bool possible(const PlanModel& model, const Split& split) {
  const bool blocks = model.width > 0;
  if (split.data > model.batch) return false;
  const bool refuses = model.parallel.uneven == dist::UnevenLength::kRefuse;
  const auto order = refuses ? model.parallel.order : dist::TokenOrder::kContiguous;
  const bool even =
      dist::padded_length(model.tokens, order, static_cast<int>(split.sequence)) == model.tokens;
  if (split.sequence > 1 && !(blocks && model.splits_sequences && even)) return false;
  const bool hidden = model.mixtures < model.depth || model.cuts_experts;
  if (split.tensor > 1 && !(blocks && model.heads % split.tensor == 0 &&
                            (!hidden || std::llround(model.hidden) % split.tensor == 0)))
    return false;
  if (split.expert > 1 && (split.data % split.expert != 0 || model.experts % split.expert != 0)) return false;
  return split.pipeline == 1 || (blocks && model.depth % split.pipeline == 0);
}

/// What `stoa train` says today.
std::string refusal(const PlanModel& model, const Split& split) {
  if (const auto parts = model.refused_parts.find(split.tensor); parts != model.refused_parts.end())
    return parts->second;
  if (const auto stages = model.refused_stages.find(split.pipeline); stages != model.refused_stages.end())
    return stages->second;
  const auto passes = [&](std::int64_t samples) { return ceil_divide(samples, split.micro_batch); };
  if ((split.expert > 1 || split.zero > 2) &&
      passes(model.batch / split.data) != passes(ceil_divide(model.batch, split.data)))
    return format("{} replicas would make unequal numbers of passes", split.data);
  return "";
}

/// The part of the step that is not arithmetic and takes the most, or what takes the most memory.
std::string reason(const PlannedSplit& planned, double memory) {
  struct Part {
    const char* name;
    double value;
  };
  const auto largest = [](const auto& parts) {
    return *std::ranges::max_element(parts, {}, [](const Part& part) { return part.value; });
  };
  const auto& m = planned.memory;
  if (!planned.fits) {
    const std::array parts = {Part{"weights take", m.weights},
                              Part{"gradients take", m.gradients},
                              Part{"optimiser states take", m.optimizer},
                              Part{"activations take", m.activations},
                              Part{"work of one operator takes", m.work},
                              Part{"message buffers take", m.buffers},
                              Part{"batches take", m.inputs},
                              Part{"room between tensors takes", m.spare},
                              Part{"the program takes", m.program}};
    const auto most = largest(parts);
    return format("{} too much: {} {}", bytes(m.total() - memory), most.name, bytes(most.value));
  }
  const auto& t = planned.time;
  const auto percent = [&](double part) { return std::llround(100 * part / t.total()); };
  const std::array parts = {Part{"memory passes", t.memory},     Part{"gradient sums", t.gradients},
                            Part{"keys and values", t.sequence}, Part{"tensor sums", t.tensor},
                            Part{"rows to experts", t.expert},   Part{"idle stages", t.pipeline}};
  const auto most = largest(parts);
  std::string text = format("{} % arithmetic", percent(t.arithmetic));
  if (percent(most.value) > 0) text += format(", {} % {}", percent(most.value), most.name);
  return text;
}

PlannedSplit evaluate(const PlanModel& model, const Split& split, const PlanMachine& machine) {
  PlannedSplit planned{
      split, predict_memory(model, split, machine), predict_time(model, split, machine), false, {}, {}};
  planned.fits = planned.memory.total() <= machine.memory;
  return planned;
}

bool better(const PlannedSplit& a, const PlannedSplit& b) {
  if (a.fits != b.fits) return a.fits;
  return a.fits ? a.time.total() < b.time.total() : a.memory.total() < b.memory.total();
}

/// The settings come from plain to involved: one is taken for another only where it fits better, runs today,
/// or is faster by what such a prediction can tell.
PlannedSplit with_best_settings(const PlanModel& model, const Split& split, const PlanMachine& machine) {
  constexpr double kTells = 0.98;
  std::optional<PlannedSplit> best;
  for (const auto& choice : settings(model, split)) {
    auto planned = evaluate(model, choice, machine);
    planned.refused = refusal(model, choice);
    const auto beats = [&](const PlannedSplit& other) {
      if (planned.fits != other.fits) return planned.fits;
      if (!planned.fits) return planned.memory.total() < other.memory.total();
      if (planned.refused.empty() != other.refused.empty()) return planned.refused.empty();
      return planned.time.total() < kTells * other.time.total();
    };
    if (!best || beats(*best)) best = std::move(planned);
  }
  best->reason = reason(*best, machine.memory);
  return std::move(*best);
}

/// What numbers of devices a model could use, for the error.
std::string advice(const PlanModel& model) {
  std::string text = format("the batch of {} goes to at most {} replicas", model.batch, model.batch);
  if (model.width == 0) return text + ", and nothing else of this model can be split";
  if (model.splits_sequences) text += format(", sequences of {} tokens into divisors of that", model.tokens);
  return text + format(", {} heads and {} blocks into divisors of theirs", model.heads, model.depth);
}

}  // namespace

Split recipe_split(const PlanModel& model, std::int64_t devices) {
  const auto options = model.parallel.for_processes(devices);
  Split split{options.data, options.sequence, options.tensor, options.pipeline, options.zero};
  split.micro_batch = std::min(model.micro_batch, ceil_divide(model.batch, split.data));
  split.recompute = model.recomputes;
  split.expert = options.expert;
  return split;
}

std::vector<PlannedSplit> plan(const PlanModel& model, std::int64_t devices, const PlanMachine& machine) {
  std::vector<PlannedSplit> found;
  Split split;
  for (split.data = 1; split.data <= std::min(devices, model.batch); ++split.data) {
    if (devices % split.data != 0) continue;
    const std::int64_t left = devices / split.data;
    for (split.sequence = 1; split.sequence <= left; ++split.sequence) {
      if (left % split.sequence != 0) continue;
      for (split.tensor = 1; split.tensor <= left / split.sequence; ++split.tensor) {
        if (left / split.sequence % split.tensor != 0) continue;
        split.pipeline = left / split.sequence / split.tensor;
        for (split.expert = 1; split.expert <= std::max(std::int64_t{1}, model.experts); ++split.expert)
          if (possible(model, split)) found.push_back(with_best_settings(model, split, machine));
      }
    }
  }
  if (found.empty())
    throw ConfigError(
        format("no split of this model uses {} devices: {}; try another --devices", devices, advice(model)));
  std::ranges::stable_sort(found, better);
  return found;
}

}  // namespace stoa
