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
  double mixtures;       ///< of the mixtures, which may stand in the last stages alone
  double matrices;       ///< of each matrix of a block
  double experts;        ///< of each mixture's experts
  double units;          ///< of each expert's hidden units
  double dealt;          ///< ranks among which ZeRO deals out
  double dealt_experts;  ///< the same of experts

  Shares(const PlanModel& model, const Split& split)
      : samples(std::ceil(static_cast<double>(model.batch) / static_cast<double>(split.data))),
        micro_batches(std::ceil(samples / static_cast<double>(split.micro_batch))),
        micro(static_cast<double>(split.micro_batch)),
        tokens(1 / static_cast<double>(split.sequence)),
        stage(1 / static_cast<double>(split.pipeline)),
        mixtures(1),
        matrices(1 / static_cast<double>(split.tensor)),
        experts(1 / static_cast<double>(split.expert)),
        units(model.cuts_experts ? matrices : 1),
        dealt(static_cast<double>(split.data * split.sequence)),
        dealt_experts(dealt * experts) {
    if (model.mixtures > 0 && model.depth > 0)
      mixtures =
          std::min(1.0, static_cast<double>(model.depth) * stage / static_cast<double>(model.mixtures));
  }
};

/// Learned numbers on a device: all in all, of them in its blocks' experts, in its blocks, and in one of
/// these; blocks that are not the same.
struct Weights {
  double learned, experts, blocks, block, distinct;

  Weights(const PlanModel& model, const Shares& shares) {
    // embeddings and heads are cut by rows of the vocabulary; of stages the fullest has all of them
    const double rest = model.learned - model.block_learned;
    experts = model.expert_learned * shares.experts * shares.units * (model.shared ? 1 : shares.mixtures);
    blocks = experts + (model.block_learned - model.expert_learned) * shares.matrices *
                           (model.shared ? 1 : shares.stage);
    learned = blocks + (rest - model.scores_learned) + model.scores_learned * shares.matrices;
    distinct = model.shared ? 1 : static_cast<double>(model.depth) * shares.stage;
    block = blocks / distinct;
  }

  /// What is left of them where shares are dealt out.
  double dealt(const Shares& shares, bool deals) const {
    return deals ? (learned - experts) / shares.dealt + experts / shares.dealt_experts : learned;
  }
  /// What comes together in a pass where ZeRO deals weights out, of which experts that a rank has alone are
  /// no part: a block, the next one, and what is of no block.
  double gathered(const Shares& shares) const {
    const double alone = shares.dealt_experts > 1 ? 0 : experts;
    const double of_one = (blocks - alone) / distinct;
    return std::min(learned - alone, learned - blocks + 2 * of_one);
  }
  /// Those whose gradients are summed over ranks.
  double summed(const Shares& shares) const {
    return (shares.dealt > 1 ? learned - experts : 0) + (shares.dealt_experts > 1 ? experts : 0);
  }
};

/// Numbers a sample leaves for the backward pass on a device: in the blocks, and beside them.
struct Kept {
  double blocks, rest;

  Kept(const PlanModel& model, const Split& split, const Shares& shares) {
    const auto t = static_cast<double>(model.tokens), d = static_cast<double>(model.width),
               depth = static_cast<double>(model.depth);
    // rows that came to experts, and answers that came back
    const double traveled = split.expert > 1 ? 2 * rows_of(model) * d : 0;
    double all = model.block_kept + traveled;
    const double units = model.cuts_experts ? rows_of(model) * 2 * model.hidden : 0;
    const double of_experts = std::max(0.0, model.expert_kept + traveled - units) / std::max(all, 1.0);
    if (split.recompute && !model.recomputes) {  // the input of each block, and one block's own
      const double inputs = 2 * t * d;
      all = depth * inputs + std::max(0.0, all / depth - inputs);
    }
    // a token's normed inputs and sums are whole on every rank that has a part of the matrices, and so are
    // the rows of mixtures
    const double whole = std::min(all, depth * 4 * t * d + of_experts * all);
    // and the sum over the ranks is kept in front of a perceptron's last bias
    const double perceptrons = depth - static_cast<double>(model.mixtures);
    const double sums =
        split.tensor > 1 ? (split.recompute ? std::min(perceptrons, 1.0) : perceptrons) * t * d : 0;
    blocks = (whole + (all - whole) * shares.matrices + sums) * shares.stage * shares.tokens;
    const double layers = split.recompute || model.recomputes ? 1 : depth;
    const double rows = layers * 2 * model.projected * d;  // of keys and values, whole on every rank
    rest = (model.kept - model.block_kept) * shares.tokens + rows * (1 - shares.tokens);
  }

  /// In all mixtures whose rows are kept at once.
  static double rows_of(const PlanModel& model) {
    const auto mixtures =
        static_cast<double>(model.recomputes ? std::min<std::int64_t>(model.mixtures, 1) : model.mixtures);
    return mixtures * static_cast<double>(model.tokens) * model.choices;
  }
};

/// Numbers beside inputs and results that the backward pass of one block needs: two of the layer between a
/// perceptron's products and the gradient of its input; of experts also their rows; of a ring, keys and
/// values and gradients of both under way, twice.
double work_of_block(const PlanModel& model, const Split& split, const Shares& shares) {
  if (model.width == 0) return 0;
  const double tokens = shares.micro * static_cast<double>(model.tokens) * shares.tokens;
  const auto d = static_cast<double>(model.width);
  const double f = model.hidden * shares.matrices;
  double most = 2 * f + d;
  // of answers that come from elsewhere the gradients have traveled, too
  if (model.mixtures > 0)
    most = model.choices * ((split.expert > 1 ? 4 : 3) * d + model.hidden * shares.units);
  if (split.sequence > 1 && model.projected == 0) most = std::max(most, 11 * d * shares.matrices - f);
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
  const auto dealt = [&](std::int64_t stage) { return weights.dealt(shares, split.zero >= stage); };
  const double frozen = (model.parameters - model.learned) / (split.zero >= 3 ? shares.dealt : 1);
  Moments moments{{}, machine.spare, {}};
  auto& always = moments.always;
  always.weights = kFloat * (dealt(3) + frozen + (split.zero >= 3 ? weights.gathered(shares) : 0));
  if (model.average) always.weights += kFloat * (dealt(3) + frozen);
  always.weights += model.tables / shares.dealt;  // rows of tables are dealt out
  always.optimizer = kFloat * static_cast<double>(model.states) * dealt(1);
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
  const double summed = dealt(2);  // gradients that stay; until the last micro-batch goes back they are whole
  const double before = shares.micro_batches > 1 ? weights.learned : 0;
  // copies of whole buckets are on their way until the end; ZeRO's second stage lets go of gradients at once
  const double bucket = static_cast<double>(dist::GradientBuckets::kBucketBytes) / kFloat;
  const double sent = weights.summed(shares);
  const double copies = split.zero >= 2 ? std::min(4 * bucket, sent) : sent;
  const double block = weights.block * (model.shared ? 2 : 1);

  moments.add("the loss is made", before + scores, all, loss, 0);
  moments.add("the backward pass begins", before + scores + block, all, work, 0);
  const double left =
      model.shared ? weights.learned - weights.block : weights.learned - scores - weights.block;
  const double late = before > 0 ? before + scores + block : std::max(summed - weights.block, 0.0) + block;
  const double last_kept = model.width > 0 ? blocks / own_blocks : 0;
  // with ZeRO's second stage there are the most before the last micro-batch, when nothing is under way
  const double on_the_way = before > 0 && split.zero >= 2 ? 0 : std::min(copies, std::max(left, 0.0));
  moments.add("the backward pass ends", late, last_kept, work, on_the_way);
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
  const double macs = ((model.macs - model.expert_macs) * shares.stage * shares.matrices +
                       model.expert_macs * shares.mixtures * shares.units) *
                      shares.tokens;
  Split whole = split;  // what is not kept is made all the same, and the second time too
  whole.recompute = model.recomputes;
  const Kept kept(model, whole, shares);
  return {(3 + again) * 2 * macs / machine.flops,
          (kPassesOverKept + again) * model.bytes_per_number * (kept.blocks + kept.rest) / machine.bandwidth};
}

/// `backward` is the time of the last one.
double gradient_seconds(const PlanModel& model, const Split& split, const Shares& shares,
                        const PlanMachine& machine, double backward) {
  if (shares.dealt == 1) return 0;
  const auto ranks = split.data * split.sequence;
  const Weights weights(model, shares);
  const auto& link = machine.link;
  const double gradients = kFloat * (weights.learned - weights.experts), experts = kFloat * weights.experts;
  const double sum = dist::all_reduce_seconds(gradients, ranks, link) +
                     dist::all_reduce_seconds(experts, ranks / split.expert, link);
  // what is shared comes together once a step, as in the other stages; layers of their own do before the
  // forward and before the backward pass of every micro-batch, the next one's while one computes
  double gathers = 0;
  if (split.zero >= 3 && !model.shared && model.width > 0)
    gathers = (2 * shares.micro_batches - 1) *
              (dist::all_gather_seconds(kFloat * (weights.blocks - weights.experts), ranks, link) +
               dist::all_gather_seconds(experts, ranks / split.expert, link));
  const double hides = (1.5 * shares.micro_batches - 1) * backward;
  // buckets leave while the last backward pass goes on; the last of them cannot be hidden
  const double last = dist::all_reduce_seconds(
      std::min(gradients, static_cast<double>(dist::GradientBuckets::kBucketBytes)), ranks, link);
  return std::max(sum - backward, last) + std::max(gathers - hides, 0.0);
}

double sequence_seconds(const PlanModel& model, const Split& split, const Shares& shares,
                        const PlanMachine& machine) {
  if (split.sequence == 1) return 0;
  const auto& options = model.parallel;
  const bool rows = model.projected > 0;  // sums of projected keys and values, forward and backward
  const double layers = static_cast<double>(model.depth) * shares.stage * shares.micro_batches;
  const double part = shares.micro *
                      (rows ? model.projected : static_cast<double>(model.tokens) * shares.tokens) *
                      static_cast<double>(model.width) * shares.matrices;
  const double sent = kFloat * part *
                      (rows ? 8 * (1 - shares.tokens)
                            : dist::sequence_traffic(options.attention, split.sequence, options.ulysses));
  const double latency = 4 * static_cast<double>(split.sequence - 1) * machine.link.latency_s;
  const double seconds = sent / machine.link.bytes_per_s + latency;
  // a ring computes on one block while the next is on its way: forward 2 products, backward 5
  const double hidden = options.attention == dist::SequenceMethod::kRing && !rows
                            ? 3.5 * 2 * shares.micro * model.attention_macs /
                                  static_cast<double>(model.depth) * shares.tokens * shares.matrices /
                                  machine.flops
                            : 0;
  return layers * std::max(seconds - hidden, seconds / static_cast<double>(split.sequence) / 4);
}

double tensor_seconds(const PlanModel& model, const Split& split, const Shares& shares,
                      const PlanMachine& machine) {
  if (split.tensor == 1) return 0;
  // two of attention and two of the perceptron or mixture, forward and backward
  const auto sums = static_cast<double>(4 * model.depth - (model.cuts_experts ? 0 : 2 * model.mixtures));
  const double bytes = kFloat * shares.micro * static_cast<double>(model.tokens) * shares.tokens *
                       static_cast<double>(model.width);
  return sums * shares.stage * shares.micro_batches *
         dist::all_reduce_seconds(bytes, split.tensor, machine.link);
}

/// Rows to experts and their answers back; and what replicas tell one another of where their tokens go.
double expert_seconds(const PlanModel& model, const Split& split, const Shares& shares,
                      const PlanMachine& machine) {
  if (model.mixtures == 0) return 0;
  const auto d = static_cast<double>(model.width);
  const double tokens = shares.micro * static_cast<double>(model.tokens) * shares.tokens;
  const double again = split.recompute ? 1.5 : 1;  // forward exchanges are made anew
  double seconds = 0;
  if (split.expert > 1)
    seconds += again * dist::expert_traffic(tokens, model.choices, d, split.expert) * kFloat /
                   machine.link.bytes_per_s +
               (4 * again + 1) * static_cast<double>(split.expert - 1) * machine.link.latency_s;
  // how often each expert is chosen, the sums of its probabilities, and the gradients of these; not where
  // every micro-batch is routed by itself
  constexpr double kNumber = 8;
  if (split.data > 1 && shares.micro_batches == 1)
    seconds += 3 * dist::all_gather_seconds(kNumber * static_cast<double>(model.experts * split.data),
                                            split.data, machine.link);
  return static_cast<double>(model.mixtures) * shares.mixtures * shares.micro_batches * seconds;
}

/// Stages that wait, what they hand on, and the sums of gradients of what several of them use.
double pipeline_seconds(const PlanModel& model, const Split& split, const Shares& shares,
                        const PlanMachine& machine, double busy) {
  if (split.pipeline == 1) return 0;
  const auto& link = machine.link;
  const double idle = dist::pipeline_idle(split.pipeline, std::llround(shares.micro_batches));
  const double handed = kFloat * shares.micro * static_cast<double>(model.tokens) * shares.tokens *
                        static_cast<double>(model.width);
  const auto both_ways = [&](double numbers) {
    return numbers > 0 ? 2 * (kFloat * numbers / link.bytes_per_s + link.latency_s) : 0;
  };
  const double blocks = model.shared ? Weights(model, shares).blocks : 0;
  return busy * idle / (1 - idle) + 2 * shares.micro_batches * (handed / link.bytes_per_s + link.latency_s) +
         both_ways(model.scores_learned * shares.matrices) +
         static_cast<double>(split.pipeline - 1) * both_ways(blocks);
}

}  // namespace

PlanTime predict_time(const PlanModel& model, const Split& split, const PlanMachine& machine) {
  const Shares shares(model, split);
  const Weights weights(model, shares);
  const auto sample = work_of_sample(model, split, shares, machine);
  PlanTime time;
  time.arithmetic = sample.arithmetic * shares.samples;
  // the update reads weights, gradients and states, and writes weights and states
  const double update = kFloat * weights.dealt(shares, split.zero >= 1) *
                        (3 + 2 * static_cast<double>(model.states)) / machine.bandwidth;
  time.memory = sample.memory * shares.samples + update;
  time.sequence = sequence_seconds(model, split, shares, machine);
  time.tensor = tensor_seconds(model, split, shares, machine);
  time.expert = expert_seconds(model, split, shares, machine);
  const double last_backward = 2.0 / 3 * (sample.arithmetic + sample.memory) * shares.micro;
  time.gradients = gradient_seconds(model, split, shares, machine, last_backward);
  const double busy =
      time.arithmetic + sample.memory * shares.samples + time.sequence + time.tensor + time.expert;
  time.pipeline = pipeline_seconds(model, split, shares, machine, busy);
  return time;
}

}  // namespace stoa
