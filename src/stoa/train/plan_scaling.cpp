#include "stoa/train/plan_scaling.h"

#include <algorithm>
#include <cmath>

namespace stoa {
namespace {

bool can_use(const PlanModel& model, ScalingMethod method, std::int64_t devices) {
  const auto divides = [&](std::int64_t number) { return number > 0 && number % devices == 0; };
  switch (method) {
    case ScalingMethod::kRing:
      return devices == 1 || (model.splits_sequences && divides(model.tokens));
    case ScalingMethod::kAllToAll:
      return devices == 1 || (model.splits_sequences && divides(model.tokens) && divides(model.heads));
    case ScalingMethod::kTensor:
      return divides(model.heads) && divides(std::llround(model.hidden));
    case ScalingMethod::kData:
      return divides(model.batch);
  }
  return false;
}

Split split_of(ScalingMethod method, std::int64_t devices) {
  Split split;
  switch (method) {
    case ScalingMethod::kRing:
    case ScalingMethod::kAllToAll:
      split.sequence = devices;
      break;
    case ScalingMethod::kTensor:
      split.tensor = devices;
      break;
    case ScalingMethod::kData:
      split.data = devices;
      break;
  }
  return split;
}

}  // namespace

PlanModel grown(PlanModel model, Growth growth, std::int64_t times) {
  const auto more = static_cast<double>(times);
  if (growth == Growth::kBatch) {
    model.batch *= times;
    model.micro_batch *= times;
  } else if (growth == Growth::kSequence) {
    model.tokens *= times;
    // products of tokens with tokens grow with both
    model.macs = more * (model.macs - model.attention_macs) + more * more * model.attention_macs;
    model.attention_macs *= more * more;
    for (double* const number :
         {&model.kept, &model.block_kept, &model.expert_kept, &model.expert_macs, &model.input_bytes})
      *number *= more;
  }
  return model;
}

std::optional<ScalingPoint> scaling_point(const PlanModel& model, Growth growth, ScalingMethod method,
                                          std::int64_t devices, const PlanMachine& machine) {
  auto work = grown(model, growth, devices);
  work.parallel.attention =
      method == ScalingMethod::kAllToAll ? dist::SequenceMethod::kUlysses : dist::SequenceMethod::kRing;
  if (!can_use(work, method, devices)) return {};
  auto split = split_of(method, devices);
  // where samples are dealt out, each device makes passes like those of one
  split.micro_batch = std::min(method == ScalingMethod::kData ? model.micro_batch : work.micro_batch,
                               work.batch / split.data);
  Split alone;
  alone.micro_batch = std::min(model.micro_batch, model.batch);
  split.recompute = alone.recompute = model.recomputes;
  ScalingPoint point{predict_time(work, split, machine), predict_memory(work, split, machine), 1};
  const double one = predict_time(work, alone, machine).total();
  point.efficiency = one / (static_cast<double>(devices) * point.time.total());
  return point;
}

PlanModel blocks_of(const dist::BlockShape& shape, std::int64_t depth) {
  constexpr double kHiddenOverWidth = 4;
  const double d = shape.width, t = shape.length, f = kHiddenOverWidth * d,
               blocks = static_cast<double>(depth);
  PlanModel model;
  model.tokens = std::llround(t);
  model.width = std::llround(d);
  model.depth = depth;
  model.heads = std::llround(shape.heads);
  model.hidden = f;
  // matrices, biases and two norms
  model.block_learned = blocks * (4 * d * d + 2 * d * f + 5 * d + f + 4 * d);
  model.learned = model.parameters = model.block_learned;
  model.states = 2;
  model.attention_macs = blocks * 2 * t * t * d;
  model.macs = blocks * t * (4 * d * d + 2 * d * f) + model.attention_macs;
  // as TextTransformerImpl::describe() counts attention, perceptron and both norms
  model.kept = model.block_kept = blocks * t * (5 * d + shape.heads + d + f + 2 * (d + 2));
  model.input_bytes = 8 * t;
  model.splits_sequences = true;
  model.batch = model.micro_batch = std::llround(shape.batch);
  return model;
}

}  // namespace stoa
