#include "stoa/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa::optim {
namespace {

constexpr double kOneCycleRise = 0.3;         // PyTorch's pct_start
constexpr double kOneCycleStartDivisor = 25;  // and div_factor
constexpr double kOneCycleEndDivisor = 25e4;  // times final_div_factor

/// Steps that a setting stands for: itself from 1 on, below that a share of all steps (at least one step if
/// not 0).
double steps_of(double setting, double total) {
  if (setting >= 1) return std::round(setting);
  return setting > 0 ? std::max(1.0, std::round(setting * total)) : 0;
}

/// From `first` (progress 0) to `last` (progress 1) along half a cosine.
double cosine(double first, double last, double progress) {
  return last + (first - last) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

/// Rises until step `rise` - 1 and falls until the last one, as PyTorch's OneCycleLR counts.
double one_cycle(const ScheduleOptions& options, double peak, double t, double total) {
  const double low = options.start != 0 ? options.start : peak / kOneCycleStartDivisor;
  const double end = options.end != 0 ? options.end : peak / kOneCycleEndDivisor;
  const double share = options.warmup != 0 ? options.warmup : kOneCycleRise;
  const double top = (share >= 1 ? share : share * total) - 1, last = total - 1;
  t = std::min(t, last);
  if (t < top) return cosine(low, peak, t / top);
  return last > std::max(top, 0.0) ? cosine(peak, end, (t - std::max(top, 0.0)) / (last - std::max(top, 0.0)))
                                   : peak;
}

void require(bool holds, const char* field, double value, const char* needed) {
  if (!holds) throw ConfigError(format("`schedule.{}` is {}; it must be {}", field, value, needed));
}

}  // namespace

void ScheduleOptions::visit(FieldVisitor& v) {
  v.choice("name", kind,
           {{"constant", ScheduleKind::kConstant},
            {"linear", ScheduleKind::kLinear},
            {"cosine", ScheduleKind::kCosine},
            {"polynomial", ScheduleKind::kPolynomial},
            {"one_cycle", ScheduleKind::kOneCycle},
            {"warmup_stable_decay", ScheduleKind::kWarmupStableDecay}},
           "how the learning rate moves after the warm-up");
  v.field("warmup", warmup, "steps that rise linearly from `start` to the peak; below 1: share of all steps");
  v.field("start", start, "learning rate at the first step of a warm-up");
  v.field("end", end, "learning rate at the end");
  v.when(kind == ScheduleKind::kPolynomial, "name = \"polynomial\"",
         [&] { v.field("power", power, "exponent of the decay (1 is linear)"); });
  v.when(kind == ScheduleKind::kWarmupStableDecay, "name = \"warmup_stable_decay\"", [&] {
    v.field("decay", decay, "last steps that fall linearly to `end`; below 1: share of all steps");
  });
  v.when(kind == ScheduleKind::kLinear || kind == ScheduleKind::kCosine || kind == ScheduleKind::kPolynomial,
         "name is linear, cosine or polynomial", [&] {
           v.field("whole_decay", whole_decay,
                   "count the decay from step 0, as BERT's program does, so that the rate drops where the "
                   "warm-up ends");
         });
  v.field("shift", shift, "added to the step number; 1: the first update is already above `start`");
}

void ScheduleOptions::validate() const {
  require(std::isfinite(warmup) && warmup >= 0, "warmup", warmup,
          ">= 0 (steps, or below 1 a share of all steps)");
  require(std::isfinite(start) && start >= 0, "start", start, ">= 0 (a learning rate)");
  require(std::isfinite(end) && end >= 0, "end", end, ">= 0 (a learning rate)");
  require(std::isfinite(power) && power > 0, "power", power, "> 0");
  require(std::isfinite(decay) && decay >= 0, "decay", decay,
          ">= 0 (steps, or below 1 a share of all steps)");
  require(shift >= 0, "shift", static_cast<double>(shift), ">= 0");
}

double learning_rate(const ScheduleOptions& options, double peak, std::int64_t step, std::int64_t total) {
  const auto all = static_cast<double>(std::max<std::int64_t>(total, 1));
  const double t = std::min(static_cast<double>(step + options.shift), all);
  if (options.kind == ScheduleKind::kOneCycle) return one_cycle(options, peak, t, all);
  const double warmup = steps_of(options.warmup, all);
  if (t < warmup) return options.start + (peak - options.start) * t / warmup;
  // the decay runs from step `from` to the end; what is left of it goes from 1 to 0
  double from = options.whole_decay ? 0 : warmup;
  if (options.kind == ScheduleKind::kWarmupStableDecay)
    from = std::max(warmup, all - steps_of(options.decay, all));
  const double left = from < all ? std::min(1.0, (all - t) / (all - from)) : 1;
  switch (options.kind) {
    case ScheduleKind::kCosine:
      return cosine(peak, options.end, 1 - left);
    case ScheduleKind::kLinear:
    case ScheduleKind::kWarmupStableDecay:
      return options.end + (peak - options.end) * left;
    case ScheduleKind::kPolynomial:
      return options.end + (peak - options.end) * std::pow(left, options.power);
    default:
      return peak;
  }
}

}  // namespace stoa::optim
