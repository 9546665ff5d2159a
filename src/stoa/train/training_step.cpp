#include "stoa/train/training_step.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/random.h"
#include "stoa/ops/dropout.h"
#include "stoa/train/phase_scope.h"

namespace stoa {
namespace {

/// A micro-batch's share in its batch: of the task's own loss, and of side losses.
struct Shares {
  double own, side;
};

/// Weighted sums over micro-batches, kept on the device: one transfer a batch brings them all to the host.
class Gathered {
 public:
  void add(const LossResult& result, const Shares& shares, bool statistics) {
    std::vector<at::Tensor> scalars;
    const auto take = [&](const std::string& name, const at::Tensor& value, double share,
                          std::vector<std::string>& names) {
      scalars.push_back(shared(value.detach().reshape({}).to(result.loss.device(), at::kDouble), share));
      if (!sums_.defined()) names.push_back(name);
    };
    take("loss", result.loss, shares.own, losses_);
    for (const auto& side : result.side.losses) take(side.name, side.value, shares.side, losses_);
    for (const auto& metric : result.metrics) take(metric.name, metric.value, shares.own, metrics_);
    for (const auto& metric : result.side_metrics) take(metric.name, metric.value, shares.side, metrics_);
    const at::Tensor sums = at::stack(scalars);
    sums_ = sums_.defined() ? sums_ + sums : sums;
    if (statistics) add_statistics(result.side.statistics, shares.side);
  }

  /// From now on the sums of all processes.
  void sum_over(dist::Group& partners) {
    const at::NoGradGuard no_gradients;
    for (auto& statistic : statistics_) partners.all_reduce(statistic.value);
    partners.all_reduce(sums_);
  }

  BatchOutcome outcome(bool statistics) const {
    const at::Tensor values = sums_.cpu();
    const double* value = values.const_data_ptr<double>();
    BatchOutcome outcome;
    for (const auto& name : losses_) outcome.losses.emplace_back(name, *value++);
    for (const auto& name : metrics_) outcome.metrics.emplace_back(name, *value++);
    if (!statistics) return outcome;
    outcome.statistics = Json::object();
    for (const auto& [name, value] : statistics_) outcome.statistics[name] = nested(value.cpu());
    return outcome;
  }

 private:
  void add_statistics(const std::vector<nn::NamedTensor>& found, double share) {
    const bool first = statistics_.empty();
    for (std::size_t i = 0; i < found.size(); ++i) {
      const at::Tensor value = shared(found[i].value.detach().to(at::kDouble), share);
      if (first)
        statistics_.push_back({found[i].name, value});
      else
        statistics_.at(i).value += value;
    }
  }

  /// The mean over nothing is not a number, but has no share either.
  static at::Tensor shared(const at::Tensor& value, double share) {
    return share == 0 ? at::zeros_like(value) : value * share;
  }

  /// Six digits are more than a picture shows and keep the log small.
  static double rounded(double value) { return std::strtod(format("{:.6g}", value).c_str(), nullptr); }

  static Json nested(const at::Tensor& values) {
    if (values.dim() == 0) return rounded(values.item<double>());
    Json list = Json::array();
    for (std::int64_t i = 0; i < values.size(0); ++i) list.push_back(nested(values[i]));
    return list;
  }

  std::vector<std::string> losses_, metrics_;
  at::Tensor sums_;  // [losses and metrics], fp64
  std::vector<nn::NamedTensor> statistics_;
};

std::vector<Batch> cut(const Batch& batch, std::int64_t size) {
  if (size == 0 || size >= batch.samples) return {batch};
  std::vector<Batch> pieces;
  for (std::int64_t begin = 0; begin < batch.samples; begin += size)
    pieces.push_back(batch.slice(begin, std::min(begin + size, batch.samples)));
  return pieces;
}

LossResult forward(Task& task, const Batch& piece, const StepContext& context, const Runtime& runtime) {
  const PhaseScope phase(Phase::kForward);
  const AutocastScope autocast(runtime);
  return task.loss(piece.to(runtime.device), context);
}

void backward(const LossResult& result, const Shares& shares) {
  at::Tensor objective = result.loss * shares.own;
  for (const auto& side : result.side.losses) objective = objective + side.value * shares.side;
  const PhaseScope phase(Phase::kBackward);
  objective.backward();
}

/// Weights of the pieces, and of the whole step's batch.
struct Weights {
  std::vector<double> own, side;
  double total = 0, side_total = 0;

  Weights(const Task& task, const std::vector<Batch>& pieces, const StepShare& share,
          const Runtime& runtime) {
    for (const auto& piece : pieces) {
      total += own.emplace_back(task.weight(piece));
      side_total += side.emplace_back(task.side_weight(piece));
    }
    if (share.partners == nullptr) return;
    const auto totals = at::tensor({total, side_total}, at::kDouble).to(runtime.device);
    share.partners->all_reduce(totals);
    total = totals[0].item<double>();
    side_total = totals[1].item<double>();
  }
  Shares shares(std::size_t i) const { return {own[i] / total, side[i] / side_total}; }
};

/// Takes part in the lookups that other processes make for pieces of which this one has no more, before its
/// own: with the last piece the gradients of all are on their way.
void join_lookups(const StepShare& share, std::int64_t own, std::int64_t size) {
  if (share.tables == nullptr || size == 0) return;
  for (auto i = own; i < (share.most_samples + size - 1) / size; ++i) share.tables->look_up_nothing();
}

std::vector<PipelineStep> steps_of(const StepShare& share, std::int64_t micro_batches) {
  const auto stage = share.layers == nullptr ? 0 : share.layers->stage();
  const auto stages = share.layers == nullptr ? 1 : share.layers->stages();
  return pipeline_steps(share.schedule, stage, stages, micro_batches);
}

/// What the stage with the last layer found.
BatchOutcome of_last(const BatchOutcome& found, const dist::SplitLayers& layers) {
  Json names = {{"losses", Json::array()}, {"metrics", Json::array()}, {"statistics", found.statistics}};
  std::vector<double> values;
  const auto put = [&](const char* kind, const NamedNumbers& numbers) {
    for (const auto& [name, value] : numbers) {
      names[kind].push_back(name);
      values.push_back(value);
    }
  };
  put("losses", found.losses);
  put("metrics", found.metrics);
  names = Json::parse(layers.of_last(names.dump()));
  values = layers.of_last(values);
  BatchOutcome last;
  auto value = values.begin();
  for (const auto& name : names["losses"]) last.losses.emplace_back(name, *value++);
  for (const auto& name : names["metrics"]) last.metrics.emplace_back(name, *value++);
  last.statistics = names["statistics"];
  return last;
}

}  // namespace

BatchOutcome accumulate_gradients(Task& task, const Batch& batch, const StepContext& context,
                                  std::int64_t micro_batch_size, const Runtime& runtime, bool statistics,
                                  const StepShare& share) {
  const auto pieces = cut(batch, micro_batch_size);
  const Weights weights(task, pieces, share, runtime);
  if (!(weights.total > 0))
    throw DataError(format(
        "step {}: the batch has nothing to learn from (its weight is {}); check the data, or take larger "
        "batches",
        context.step + 1, weights.total));
  std::vector<std::size_t> heavy;  // pieces with something to learn from
  for (std::size_t i = 0; i < pieces.size(); ++i)
    if (weights.own[i] > 0 || share.meets_in_passes) heavy.push_back(i);
  join_lookups(share, std::max<std::int64_t>(1, std::ssize(heavy)), micro_batch_size);
  Gathered gathered;
  const auto go_forward = [&](std::size_t i, bool learn) {
    const auto first = share.first_sample + static_cast<std::int64_t>(i) * micro_batch_size;
    at::manual_seed(mix_seed({share.seed, static_cast<std::uint64_t>(first)}));
    const ops::BatchPartScope part({first, share.seed});
    const at::AutoGradMode record(learn);
    return forward(task, pieces[i], context, runtime);
  };
  std::vector<LossResult> held(heavy.size());  // forward passes that wait for their backward passes
  for (const auto& [is_forward, micro_batch] : steps_of(share, std::ssize(heavy))) {
    const auto place = static_cast<std::size_t>(micro_batch);
    const auto i = heavy[place];
    if (is_forward) {
      held[place] = go_forward(i, true);
      continue;
    }
    for (auto* const buckets : {share.buckets, share.expert_buckets})
      if (buckets != nullptr && i == heavy.back()) buckets->arm();
    backward(held[place], weights.shares(i));
    gathered.add(held[place], weights.shares(i), statistics);
    held[place] = {};
  }
  if (heavy.empty())  // only to know what the other processes report
    gathered.add(go_forward(0, false), {0, 0}, statistics);
  for (auto* const buckets : {share.buckets, share.expert_buckets})
    if (buckets != nullptr) buckets->finish();
  if (share.layers != nullptr) share.layers->add_shared_gradients(share.gradient_holder);
  if (share.partners != nullptr) gathered.sum_over(*share.partners);
  auto outcome = gathered.outcome(statistics);
  return share.layers == nullptr ? outcome : of_last(outcome, *share.layers);
}

void StepMeans::add(const NamedNumbers& numbers) {
  for (const auto& [name, value] : numbers) {
    auto sum = std::ranges::find(sums_, name, &Sum::name);
    if (sum == sums_.end()) sum = sums_.insert(sums_.end(), Sum{name});
    sum->sum += value;
    ++sum->count;
  }
}

Json StepMeans::means() const {
  Json means = Json::object();
  for (const auto& sum : sums_) means[sum.name] = sum.sum / static_cast<double>(sum.count);
  return means;
}

Json StepMeans::state() const {
  Json state = Json::object();
  for (const auto& sum : sums_) state[sum.name] = {sum.sum, sum.count};
  return state;
}

void StepMeans::load(const Json& state) {
  sums_.clear();
  for (const auto& [name, sum] : state.items())
    sums_.push_back(
        {name, sum.at(0).is_number() ? sum.at(0).get<double>() : std::numeric_limits<double>::quiet_NaN(),
         sum.at(1).get<std::int64_t>()});
}

}  // namespace stoa
