#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "stoa/dist/plan_costs.h"
#include "stoa/train/plan_model.h"

// Which ways of sharing a recipe's training out fit a number of devices, and how much memory and time each
// takes. Everything is computed: nothing is run, so that a laptop can plan for a cluster.
//
// Memory is the largest of a few moments of a training step, because not everything is there at once: what
// is kept for the backward pass (activations) shrinks while gradients grow. Kept numbers are those that the
// model's description counts, part by part; tests hold the sum to tensors counted in real steps. Time is
// arithmetic at the measured rate of matrix products, passes over kept numbers and weights at the measured
// speed of memory, and what is sent by the formulas of dist/plan_costs.h.
namespace stoa {

/// One way to share the work out.
struct Split {
  std::int64_t data = 1, sequence = 1, tensor = 1, pipeline = 1;
  std::int64_t zero = 0;
  std::int64_t micro_batch = 1;  ///< samples of a replica's forward pass
  bool recompute = false;
  std::int64_t expert = 1;  ///< replicas among which the experts of each mixture are dealt out

  std::int64_t devices() const { return data * sequence * tensor * pipeline; }
  bool operator==(const Split&) const = default;
};

/// What a device is like.
struct PlanMachine {
  double memory = 0;        ///< bytes
  double flops = 1e11;      ///< of matrix products in the recipe's precision, a second
  double bandwidth = 1e10;  ///< of memory, bytes a second
  double program = 0;       ///< bytes that the process takes beside tensors
  /// Room between tensors that the allocator cannot use, as a share of what comes and goes within a step.
  double spare = 0;
  dist::Link link;  ///< between devices
};

/// Bytes on a device at the moment of a step when they are the most.
struct PlanMemory {
  double weights = 0, gradients = 0, optimizer = 0, activations = 0;
  double work = 0;     ///< of the operator that needs the most beside its inputs and results
  double buffers = 0;  ///< of messages: gradients and blocks of keys under way
  double inputs = 0;   ///< batches that were read ahead
  double program = 0, spare = 0;
  std::string moment;  ///< "the loss", "the backward pass begins", ...

  double tensors() const { return weights + gradients + optimizer + activations + work + buffers + inputs; }
  double total() const { return tensors() + program + spare; }
};

/// Seconds of a step, one after the other; what is hidden behind arithmetic is not counted.
struct PlanTime {
  double arithmetic = 0;
  double memory = 0;     ///< passes over what is kept, and over the weights in the update
  double gradients = 0;  ///< summing them, and gathering what ZeRO deals out
  double sequence = 0;   ///< keys and values under way between parts of sequences
  double tensor = 0;     ///< sums over parts of matrices
  double expert = 0;     ///< which tokens go where in mixtures, and their rows on the way to experts and back
  double pipeline = 0;   ///< stages that wait, and what they hand on

  double total() const { return arithmetic + memory + gradients + sequence + tensor + expert + pipeline; }
};

/// A split and what it comes to.
struct PlannedSplit {
  Split split;
  PlanMemory memory;
  PlanTime time;
  bool fits = false;
  std::string refused;  ///< what `stoa train` says to it today; empty where it runs
  std::string reason;   ///< what limits it, for people: "97 % arithmetic", "activations take 21.3 GiB"
};

PlanMemory predict_memory(const PlanModel& model, const Split& split, const PlanMachine& machine);
PlanTime predict_time(const PlanModel& model, const Split& split, const PlanMachine& machine);

/// The recipe as it stands, with `devices` processes: its own [parallel], micro-batch and recomputation.
Split recipe_split(const PlanModel& model, std::int64_t devices);

/// Every way to use exactly so many devices (data x sequence x tensor x pipeline, experts dealt out among
/// some of the replicas) that the model allows, each with the plainest ZeRO stage, micro-batch and
/// recomputation that fit, run today and are not slower than others by more than a prediction can tell; or
/// that take the least memory where none fits. Those that fit come first, the fastest of them before the
/// others. Throws ConfigError where the model allows none.
std::vector<PlannedSplit> plan(const PlanModel& model, std::int64_t devices, const PlanMachine& machine);

}  // namespace stoa
