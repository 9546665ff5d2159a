#pragma once

#include <array>
#include <string_view>

#include "stoa/nn/part_scope.h"

namespace stoa {

/// What the trainer does in a step, one after the other: waits for its batch, forward and backward of each
/// micro-batch, norm of the gradients, update.
enum class Phase { kData, kForward, kBackward, kClip, kOptimizer };

/// The phases' names, in their order; a part of a model has another name.
inline constexpr std::array kPhaseNames = {"data", "forward", "backward", "clip", "optimizer"};
/// The name of the scope around a whole step.
inline constexpr const char* kStepName = "step";

/// Names the phase of the step that runs in its scope, for profilers, as nn::PartScope does a part of the
/// model.
class PhaseScope : public nn::PartScope {
 public:
  explicit PhaseScope(Phase phase) : PartScope(kPhaseNames[static_cast<std::size_t>(phase)]) {}
};

}  // namespace stoa
