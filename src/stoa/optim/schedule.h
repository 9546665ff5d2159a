#pragma once

#include <cstdint>
#include <string>

#include "stoa/base/options.h"

namespace stoa::optim {

enum class ScheduleKind { kConstant, kLinear, kCosine, kPolynomial, kOneCycle, kWarmupStableDecay };

/// How the learning rate moves over a run (large-scale-optimisation.md 2.1, widenet.md 3).
struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::kLinear;
  double warmup = 0;         ///< steps if >= 1, share of all steps if < 1; linear from `start` to the peak
  double start = 0;          ///< rate at step 0 of a warm-up, absolute
  double end = 0;            ///< rate the decay ends at, absolute
  double power = 1;          ///< of the polynomial decay
  double decay = 0.1;        ///< share of all steps (or steps if >= 1) that decay, for warm-up-stable-decay
  bool whole_decay = false;  ///< the decay counts from step 0, not from the end of the warm-up (BERT)
  std::int64_t shift = 0;    ///< added to the step number: 1 makes the first update use a rate above `start`

  void visit(FieldVisitor& v);
  void validate() const;
};

/// The rate of update number `step` (from 0) of `total`, for a peak of `peak`: from these numbers alone.
/// Warm-up of W steps: start + (peak - start) * t / W for t < W (t = step + shift); then from the peak at t =
/// W to `end` at t = total; with whole_decay as if from the peak at t = 0, so that the rate drops by the
/// share W / total where the warm-up ends (bamboo.md 2.12). One-cycle: cosine from peak / 25 to the peak over
/// the warm-up share, then cosine to peak / 25e4 (Smith's policy in PyTorch's form, 30 % rise unless `warmup`
/// is set; `start` and `end` override the two low rates where not 0).
double learning_rate(const ScheduleOptions& options, double peak, std::int64_t step, std::int64_t total);

}  // namespace stoa::optim
