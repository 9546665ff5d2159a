#include "stoa/train/shared_model.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/progress.h"
#include "stoa/nn/parameters.h"
#include "stoa/train/pipeline_schedule.h"

namespace stoa {

SharedModel::SharedModel(Recipe& recipe, Task& task, const Team& team)
    : recipe_(recipe),
      task_(task),
      team_(team),
      batch_(share_of(recipe.train.batch_size, team.part(), team.parts())),
      weights_(team.split_weights(task.model())),
      experts_(team.share_experts(task.model(),
                                  /*together=*/recipe.train.micro_batch_size == 0 ||
                                      recipe.train.micro_batch_size >= recipe.train.batch_size)),
      layers_(team.split_layers(task.model())),
      gathered_(gather_weights()),
      optimizer_(make_optimizer()),
      sparse_(task.sparse_weights()),
      tables_(dynamic_cast<nn::SplitsRows*>(sparse_)) {
  require_room();
  make_buckets();
  if (layers_.is_split())
    log_info(idle_text(layers_.stages(), share_of(recipe.train.batch_size, 0, team.parts()).end,
                       recipe.train.micro_batch_size));
  if (recipe.train.ema > 0)
    average_ = gathered_.is_shared()
                   ? std::make_unique<optim::MovingAverage>(gathered_.own(task.model()), recipe.train.ema)
                   : std::make_unique<optim::MovingAverage>(task.model(), recipe.train.ema);
}

dist::GatheredWeights SharedModel::gather_weights() const {
  if (recipe_.parallel.zero < 3 || team_.partners() == nullptr) return {};
  return {task_.model(), *team_.partners()};
}

std::unique_ptr<optim::Optimizer> SharedModel::make_optimizer() {
  auto parameters = nn::distinct_parameters(task_.model());
  if (layers_.is_split() || recipe_.parallel.zero == 0 || team_.partners() == nullptr) {
    const auto options = experts_.options_for(parameters, recipe_.optimizer);
    const auto of_shares = weights_.sum_over_shares(parameters);
    auto of_all = layers_.sum_over_stages(parameters, of_shares);
    return experts_.with_joint_norm(layers_.is_split()
                                        ? layers_.make_optimizer(std::move(parameters), options, of_shares)
                                        : weights_.make_optimizer(std::move(parameters), options),
                                    std::move(of_all));
  }
  auto of_shares = weights_.sum_over_shares(parameters);
  auto sharded = std::make_unique<dist::ShardedOptimizer>(
      std::move(parameters), recipe_.optimizer, *team_.partners(), std::move(of_shares), &gathered_);
  sharded_ = sharded.get();
  return sharded;
}

void SharedModel::make_buckets() {
  using Gradients = dist::ShardedOptimizer::Gradients;
  if (sharded_ != nullptr)
    buckets_ = sharded_->make_buckets(recipe_.parallel.zero == 1 ? Gradients::kWhole : Gradients::kParts);
  else if (team_.partners() != nullptr)
    buckets_ = std::make_unique<dist::GradientBuckets>(parameters(/*dealt=*/false), *team_.partners());
  if (experts_.partners() != nullptr)
    expert_buckets_ =
        std::make_unique<dist::GradientBuckets>(parameters(/*dealt=*/true), *experts_.partners());
}

/// Those of experts that are dealt out, or the others.
std::vector<nn::NamedParameter> SharedModel::parameters(bool dealt) const {
  auto chosen = optimizer_->parameters();
  std::erase_if(chosen, [&](const auto& parameter) { return experts_.is_dealt(parameter.name) != dealt; });
  return chosen;
}

void SharedModel::require_room() const {
  const auto most = recipe_.train.batch_size, micro = recipe_.train.micro_batch_size, parts = team_.parts();
  if (recipe_.train.ema > 0 && sparse_ != nullptr)
    throw ConfigError(
        "`train.ema` keeps an average of every weight, which this task's tables do not have; set it to 0");
  if (team_.partners() == nullptr) return;
  if (most < parts)
    throw ConfigError(format("`train.batch_size` is {}, too few samples for {} processes", most, parts));
  if (sparse_ != nullptr && (tables_ == nullptr || !tables_->is_split()))
    throw ConfigError("this task's tables cannot be trained by several processes; start one");
  const auto least = most / parts, larger = (most + parts - 1) / parts;
  if ((experts_.deals() || gathered_.is_shared()) && micro > 0 &&
      (least + micro - 1) / micro != (larger + micro - 1) / micro)
    throw ConfigError(
        format("`train.batch_size` is {}, of which {} processes have {} or {} samples; with "
               "`train.micro_batch_size` = {} they would make unequal numbers of passes, which "
               "`parallel.{}` = {} does not allow: change one of them",
               most, parts, least, larger, micro, experts_.deals() ? "expert" : "zero",
               experts_.deals() ? recipe_.parallel.expert : recipe_.parallel.zero));
}

void SharedModel::load(const Checkpoint& from, const std::string& folder) {
  const auto mine = [&](const auto& whole) { return layers_.own(experts_.shares(weights_.shares(whole))); };
  const auto model_file = folder + "/model.safetensors", average_file = folder + "/average.safetensors";
  if (gathered_.is_shared())
    gathered_.load(task_.model(), mine(from.model), model_file);
  else
    nn::load_module_state(task_.model(), mine(from.model), model_file);
  const auto state = mine(from.optimizer);
  if (sharded_ != nullptr)
    sharded_->load_whole(state, folder + "/optimizer.safetensors");
  else
    optimizer_->load(state, folder + "/optimizer.safetensors");
  if (sparse_ != nullptr) sparse_->load(from.sparse, folder + "/sparse.safetensors");
  if (average_ == nullptr) return;
  auto average = mine(from.average);
  if (gathered_.is_shared())
    average = dist::deal_state(average, gathered_.find(), *team_.partners(), average_file);
  average_->load(average, average_file);
}

void SharedModel::save(Checkpoint& checkpoint) const {
  const auto whole = [&](const auto& mine) { return weights_.whole(experts_.whole(layers_.whole(mine))); };
  checkpoint.model =
      whole(gathered_.is_shared() ? gathered_.whole(task_.model()) : nn::module_state(task_.model()));
  checkpoint.optimizer = whole(sharded_ != nullptr ? sharded_->whole_state() : optimizer_->state());
  if (average_ && gathered_.is_shared())
    checkpoint.average = whole(dist::gather_state(average_->state(), gathered_.find(), *team_.partners()));
  else if (average_)
    checkpoint.average = whole(average_->state());
  if (sparse_ != nullptr) checkpoint.sparse = sparse_->state();
}

StepShare SharedModel::share(std::uint64_t seed) const {
  StepShare share;
  share.first_sample = batch_.begin;
  share.seed = seed;
  share.partners = team_.partners();
  share.buckets = buckets_.get();
  share.meets_in_passes = team_.splits_sequences() || experts_.meets() || gathered_.is_shared();
  share.tables = team_.partners() != nullptr ? tables_ : nullptr;
  share.most_samples = (recipe_.train.batch_size + team_.parts() - 1) / team_.parts();
  share.expert_buckets = expert_buckets_.get();
  share.layers = layers_.is_split() ? &layers_ : nullptr;
  return share;
}

void SharedModel::average_buffers() {
  if (team_.partners() == nullptr) return;
  const at::NoGradGuard no_gradients;
  const double share = static_cast<double>(batch_.end - batch_.begin) * static_cast<double>(team_.parts()) /
                       static_cast<double>(recipe_.train.batch_size * team_.partners()->size());
  for (auto& buffer : nn::distinct_buffers(task_.model())) {
    if (!buffer.tensor.is_floating_point()) continue;
    const auto sum = (buffer.tensor * share).contiguous();
    team_.partners()->all_reduce(sum);
    buffer.tensor.copy_(sum);
  }
}

double SharedModel::joint_norm(double norm) const {
  return sparse_ == nullptr ? norm : std::sqrt(norm * norm + sparse_->squared_gradient());
}

std::string SharedModel::first_not_finite() const {
  const auto& parameters = optimizer_->parameters();
  if (sharded_ != nullptr) {
    const auto place = sharded_->first_not_finite();
    return place < 0 ? "" : parameters[static_cast<std::size_t>(place)].name;
  }
  for (const auto& parameter : parameters) {
    const at::Tensor& gradient = parameter.tensor.grad();
    if (gradient.defined() && !gradient.isfinite().all().item<bool>()) return parameter.name;
  }
  return "";
}

void SharedModel::join() {
  layers_.join(task_.model());
  if (layers_.is_split()) return;  // the first stage alone has all
  const bool elsewhere = gathered_.is_shared() && team_.partners()->rank() > 0;
  gathered_.join(task_.model());
  if (tables_ != nullptr) tables_->join();
  if (elsewhere) return;
  weights_.join(task_.model());
  experts_.join(task_.model());
}

}  // namespace stoa
