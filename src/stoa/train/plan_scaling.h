#pragma once

#include <cstdint>
#include <optional>

#include "stoa/train/plan.h"

// How a step's time and memory go with the number of devices, for one way of sharing the work out at a time.
// All of it is computed.
namespace stoa {

/// What becomes more with the devices: sequences grow longer, batches larger, or nothing (strong scaling).
enum class Growth { kSequence, kBatch, kNothing };

/// What the devices share out: sequences, whose keys and values go round (ring) or whose heads are dealt out
/// (all-to-all); matrices; or samples.
enum class ScalingMethod { kRing, kAllToAll, kTensor, kData };

/// One number of devices.
struct ScalingPoint {
  PlanTime time;
  PlanMemory memory;
  double efficiency = 0;  ///< time of one device for all of the work, over the time of all devices together
};

/// `model` with as much more of it for `times` devices.
PlanModel grown(PlanModel model, Growth growth, std::int64_t times);

/// The step of so many devices, of which `model` is the work of one; nothing where the method cannot use
/// them: heads, samples or tokens are too few, or not divided by their number.
std::optional<ScalingPoint> scaling_point(const PlanModel& model, Growth growth, ScalingMethod method,
                                          std::int64_t devices, const PlanMachine& machine);

/// So many blocks of a shape, with nothing in front or behind, trained by Adam: what the paper's tables are
/// of.
PlanModel blocks_of(const dist::BlockShape& shape, std::int64_t depth);

}  // namespace stoa
