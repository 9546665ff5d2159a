// Memory and time of a split: predict_memory() and predict_time() of plan.h.
#include <algorithm>
#include <cmath>

#include "stoa/dist/gradient_buckets.h"
#include "stoa/train/plan.h"

namespace stoa {
namespace {

constexpr double kFloat = 4;
// a kept number is written and read again, and so is its gradient
constexpr double kPassesOverKept = 4;

/// Shares of the weights and of the work of one device.
struct Shares {
  double samples;        ///< of a replica's step
  double micro_batches;  ///< it makes of them
  double micro;          ///< samples of one
  double tokens;         ///< of a sample, on this device, as a share
  double stage;          ///< of the blocks
  double matrices;       ///< of each matrix of a block
  double dealt;          ///< ranks among which ZeRO deals out

  Shares(const PlanModel& model, const Split& split)
      : samples(std::ceil(static_cast<double>(model.batch) / static_cast<double>(split.data))),
        micro_batches(std::ceil(samples / static_cast<double>(split.micro_batch))),
        micro(static_cast<double>(split.micro_batch)),
        tokens(1 / static_cast<double>(split.sequence)),
        stage(1 / static_cast<double>(split.pipeline)),
        matrices(1 / static_cast<double>(split.tensor)),
        dealt(static_cast<double>(split.data * split.sequence)) {}
};

/// Learned numbers on a device: all in all, in its blocks, and in one of these.
struct Weights {
  double learned, blocks, block;

  Weights(const PlanModel& model, const Shares& shares) {
    // embeddings and heads are cut by rows of the vocabulary; of stages the fullest has all of them
    const double rest = model.learned - model.block_learned;
    blocks = model.block_learned * shares.stage * shares.matrices;
    learned = blocks + (rest - model.scores_learned) + model.scores_learned * shares.matrices;
    const double distinct = model.shared ? 1 : static_cast<double>(model.depth) * shares.stage;
    block = blocks / distinct;
  }
};

/// Numbers a sample leaves for the backward pass on a device: in the blocks, and beside them.
struct Kept {
  double blocks, rest;

  Kept(const PlanModel& model, const Split& split, const Shares& shares) {
    const auto t = static_cast<double>(model.tokens), d = static_cast<double>(model.width),
               depth = static_cast<double>(model.depth);
    double all = model.block_kept;
    if (split.recompute && !model.recomputes) {  // the input of each block, and one block's own
      const double inputs = 2 * t * d;
      all = depth * inputs + std::max(0.0, model.block_kept / depth - inputs);
    }
    // a token's normed inputs and sums are whole on every rank that has a part of the matrices
    const double whole = std::min(all, depth * 4 * t * d);
    // and the sum over the ranks is kept in front of a perceptron's last bias
    const double sums = split.tensor > 1 ? (split.recompute ? 1 : depth) * t * d : 0;
    blocks = (whole + (all - whole) * shares.matrices + sums) * shares.stage * shares.tokens;
    rest = (model.kept - model.block_kept) * shares.tokens;
  }
};

/// Numbers beside inputs and results that the backward pass of one block needs: two of the layer between a
/// perceptron's products and the gradient of its input; of experts also their rows; of a ring, keys and
/// values and gradients of both under way, twice.
double work_of_block(const PlanModel& model, const Split& split, const Shares& shares) {
  if (model.width == 0) return 0;
  const double tokens = shares.micro * static_cast<double>(model.tokens) * shares.tokens;
  const auto d = static_cast<double>(model.width), k = static_cast<double>(model.choices);
  const double f = model.hidden * shares.matrices;
  double most = model.choices > 0 ? k * (3 * d + f) : 2 * f + d;
  if (split.sequence > 1) most = std::max(most, 11 * d * shares.matrices - f);
  // a block that runs again has gradients of both its results, and one result more, beside what it keeps
  if (split.recompute) most += 3 * d;
  return tokens * most;
}

/// Scores over a vocabulary exist for some rows at a time (ops/linear_cross_entropy.h).
double work_of_loss(const PlanModel& model, const Shares& shares) {
  if (model.vocabulary == 0) return 0;
  constexpr double kScores = 1 << 24, kFewest = 64, kMost = 1024;
  const double classes = static_cast<double>(model.vocabulary) * shares.matrices;
  const double width = model.scores_learned / static_cast<double>(model.vocabulary);
  const double rows = shares.micro * static_cast<double>(model.tokens) * shares.tokens * model.asked;
  const double most = std::clamp(std::floor(kScores / classes / kFewest) * kFewest, kFewest, kMost);
  const double chunks = std::max(1.0, std::ceil(rows / most));
  const double at_once = std::ceil(rows / chunks / kFewest) * kFewest;
  const double groups =
      std::min(std::ceil(classes / 256), std::clamp(std::floor(classes / width), 8.0, 32.0));
  return at_once * (classes + (groups + 1) * width);
}

struct Moments {
  PlanMemory always;  ///< what is there all the time
  double spare;       ///< as PlanMachine has it
  PlanMemory largest;

  void add(const char* name, double gradients, double activations, double work, double buffers) {
    PlanMemory at = always;
    at.moment = name;
    at.gradients = kFloat * gradients;
    at.activations = activations;
    at.work = work;
    at.buffers = kFloat * buffers;
    at.spare = spare * (at.gradients + at.activations + at.work + at.buffers);
    if (largest.moment.empty() || at.total() > largest.total()) largest = at;
  }
};

}  // namespace

PlanMemory predict_memory(const PlanModel& model, const Split& split, const PlanMachine& machine) {
  const Shares shares(model, split);
  const Weights weights(model, shares);
  const Kept kept(model, split, shares);
  const auto dealt = [&](std::int64_t stage) { return split.zero >= stage ? 1 / shares.dealt : 1.0; };
  const double frozen = model.parameters - model.learned;
  Moments moments{{}, machine.spare, {}};
  auto& always = moments.always;
  // weights that are dealt out are whole for one block at a time
  always.weights = kFloat * ((weights.learned + frozen) * dealt(3) + (split.zero >= 3 ? weights.block : 0));
  if (model.average) always.weights += kFloat * (weights.learned + frozen) * dealt(3);
  always.weights += model.tables / shares.dealt;  // rows of tables are dealt out
  always.optimizer = kFloat * static_cast<double>(model.states) * weights.learned * dealt(1);
  always.program = machine.program;
  const double ahead = model.workers > 0 ? 2 * static_cast<double>(model.workers) : 0;
  always.inputs = model.input_bytes * shares.samples * (1 + ahead);

  // under 1F1B a stage holds as many micro-batches as there are stages, if there are so many
  const double held = std::min(static_cast<double>(split.pipeline), shares.micro_batches);
  const double number = model.bytes_per_number * shares.micro;
  const double blocks = number * kept.blocks * held, all = blocks + number * kept.rest * held;
  const double own_blocks = std::max(1.0, static_cast<double>(model.depth) * shares.stage);
  const double work = model.bytes_per_number * work_of_block(model, split, shares);
  const double loss = kFloat * work_of_loss(model, shares);

  const double scores = model.scores_learned * shares.matrices;
  const double summed = weights.learned * dealt(2);  // gradients that stay
  const double before = shares.micro_batches > 1 ? summed : 0;
  const bool exchanges = shares.dealt > 1;
  // copies of whole buckets are on their way until the end; ZeRO's second stage lets go of gradients at once
  const double bucket = static_cast<double>(dist::GradientBuckets::kBucketBytes) / kFloat;
  const double copies = !exchanges        ? 0
                        : split.zero >= 2 ? std::min(4 * bucket, weights.learned)
                                          : weights.learned;
  const double block = weights.block * (model.shared ? 2 : 1);

  moments.add("the loss is made", before + scores, all, loss, 0);
  moments.add("the backward pass begins", before + scores + block, all, work, 0);
  const double left =
      model.shared ? weights.learned - weights.block : weights.learned - scores - weights.block;
  const double late = before > 0 ? summed + scores + block : std::max(summed - weights.block, 0.0) + block;
  const double last_kept = model.width > 0 ? blocks / own_blocks : 0;
  moments.add("the backward pass ends", late, last_kept, work, std::min(copies, std::max(left, 0.0)));
  // the embedding's gradient meets that of the loss, which is of the same matrix
  moments.add("the gradients are summed", summed + (scores > 0 && before == 0 ? scores : 0), 0, 0, copies);
  return moments.largest;
}

namespace {

/// Seconds of one sample's share of the step on a device at work.
struct Work {
  double arithmetic, memory;
};

Work work_of_sample(const PlanModel& model, const Split& split, const Shares& shares,
                    const PlanMachine& machine) {
  const double again = split.recompute ? 1 : 0;  // the backward pass is two forward ones
  const double parts = shares.tokens * shares.stage * shares.matrices;
  Split whole = split;  // what is not kept is made all the same, and the second time too
  whole.recompute = model.recomputes;
  const Kept kept(model, whole, shares);
  return {(3 + again) * 2 * model.macs * parts / machine.flops,
          (kPassesOverKept + again) * model.bytes_per_number * (kept.blocks + kept.rest) / machine.bandwidth};
}

double gradient_seconds(const PlanModel& model, const Split& split, const Shares& shares,
                        const PlanMachine& machine, double backward) {
  if (shares.dealt == 1) return 0;
  const auto ranks = split.data * split.sequence;
  const double gradients = kFloat * Weights(model, shares).learned;
  const double sum = dist::all_reduce_seconds(gradients, ranks, machine.link) * (split.zero >= 3 ? 1.5 : 1);
  // buckets leave while the last backward pass goes on; the last of them cannot be hidden
  const double last = dist::all_reduce_seconds(
      std::min(gradients, static_cast<double>(dist::GradientBuckets::kBucketBytes)), ranks, machine.link);
  return std::max(sum - backward, last);
}

double sequence_seconds(const PlanModel& model, const Split& split, const Shares& shares,
                        const PlanMachine& machine) {
  if (split.sequence == 1) return 0;
  const auto& options = model.parallel;
  const double layers = static_cast<double>(model.depth) * shares.stage * shares.micro_batches;
  const double part = shares.micro * static_cast<double>(model.tokens) * shares.tokens *
                      static_cast<double>(model.width) * shares.matrices;
  const double sent =
      kFloat * part * dist::sequence_traffic(options.attention, split.sequence, options.ulysses);
  const double latency = 4 * static_cast<double>(split.sequence - 1) * machine.link.latency_s;
  const double seconds = sent / machine.link.bytes_per_s + latency;
  // a ring computes on one block while the next is on its way: forward 2 products, backward 5
  const double hidden = options.attention == dist::SequenceMethod::kRing
                            ? 3.5 * 2 * shares.micro * model.attention_macs /
                                  static_cast<double>(model.depth) * shares.tokens * shares.matrices /
                                  machine.flops
                            : 0;
  return layers * std::max(seconds - hidden, seconds / static_cast<double>(split.sequence) / 4);
}

double tensor_seconds(const PlanModel& model, const Split& split, const Shares& shares,
                      const PlanMachine& machine) {
  if (split.tensor == 1) return 0;
  constexpr double kSums = 4;  // of attention and of the perceptron, forward and backward
  const double layers = static_cast<double>(model.depth) * shares.stage * shares.micro_batches;
  const double bytes = kFloat * shares.micro * static_cast<double>(model.tokens) * shares.tokens *
                       static_cast<double>(model.width);
  return layers * kSums * dist::all_reduce_seconds(bytes, split.tensor, machine.link);
}

}  // namespace

PlanTime predict_time(const PlanModel& model, const Split& split, const PlanMachine& machine) {
  const Shares shares(model, split);
  const Weights weights(model, shares);
  const auto sample = work_of_sample(model, split, shares, machine);
  PlanTime time;
  time.arithmetic = sample.arithmetic * shares.samples;
  // the update reads weights, gradients and states, and writes weights and states
  const double update = kFloat * weights.learned * (3 + 2 * static_cast<double>(model.states)) /
                        (split.zero >= 1 ? shares.dealt : 1) / machine.bandwidth;
  time.memory = sample.memory * shares.samples + update;
  time.sequence = sequence_seconds(model, split, shares, machine);
  time.tensor = tensor_seconds(model, split, shares, machine);
  const double last_backward = 2.0 / 3 * (sample.arithmetic + sample.memory) * shares.micro;
  time.gradients = gradient_seconds(model, split, shares, machine, last_backward);
  if (split.pipeline > 1) {
    const double idle = dist::pipeline_idle(split.pipeline, std::llround(shares.micro_batches));
    const double busy = time.arithmetic + sample.memory * shares.samples + time.sequence + time.tensor;
    const double handed = kFloat * shares.micro * static_cast<double>(model.tokens) * shares.tokens *
                          static_cast<double>(model.width);
    time.pipeline = busy * idle / (1 - idle) +
                    2 * shares.micro_batches * (handed / machine.link.bytes_per_s + machine.link.latency_s);
  }
  return time;
}

}  // namespace stoa
