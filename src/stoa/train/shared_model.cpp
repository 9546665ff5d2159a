#include "stoa/train/shared_model.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/progress.h"
#include "stoa/nn/parameters.h"
#include "stoa/tensor/shape.h"
#include "stoa/train/pipeline_schedule.h"

namespace stoa {
namespace {

std::map<std::string, std::vector<std::int64_t>> sizes_in(const torch::nn::Module& model) {
  std::map<std::string, std::vector<std::int64_t>> sizes;
  for (const auto& [name, tensor] : nn::module_state(model)) sizes.emplace(name, tensor.sizes().vec());
  return sizes;
}

}  // namespace

SharedModel::SharedModel(Recipe& recipe, Task& task, const Team& team)
    : recipe_(recipe),
      task_(task),
      team_(team),
      batch_(share_of(recipe.train.batch_size, team.part(), team.parts())),
      sizes_(sizes_in(task.model())),
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
  return {task_.model(), experts_.shard_groups(*team_.partners())};
}

std::unique_ptr<optim::Optimizer> SharedModel::make_optimizer() {
  auto parameters = nn::distinct_parameters(task_.model());
  const auto options = experts_.options_for(parameters, recipe_.optimizer);
  auto sum = layers_.sum_over_stages(parameters, weights_.sum_over_shares(parameters));
  auto joint = experts_.joint_square(parameters);
  if (recipe_.parallel.zero == 0 || team_.partners() == nullptr)
    return optim::make_optimizer(std::move(parameters), options, std::move(sum), std::move(joint));
  auto sharded = std::make_unique<dist::ShardedOptimizer>(std::move(parameters), options,
                                                          experts_.shard_groups(*team_.partners()),
                                                          std::move(sum), &gathered_, std::move(joint));
  sharded_ = sharded.get();
  return sharded;
}

void SharedModel::make_buckets() {
  using Gradients = dist::ShardedOptimizer::Gradients;
  if (sharded_ != nullptr) {
    const auto keep = recipe_.parallel.zero == 1 ? Gradients::kWhole : Gradients::kParts;
    buckets_ = sharded_->make_buckets(keep);
    expert_buckets_ = sharded_->make_expert_buckets(keep);
    return;
  }
  if (team_.partners() != nullptr)
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

/// The model's tensors as they are here, shards of them with ZeRO 3.
SharedModel::State SharedModel::own_weights() const {
  return gathered_.is_shared() ? gathered_.own(task_.model()) : nn::module_state(task_.model());
}

void SharedModel::load(const Checkpoint& from, const std::string& folder) {
  const auto model_file = folder + "/model.safetensors", optimizer_file = folder + "/optimizer.safetensors",
             average_file = folder + "/average.safetensors";
  if (sparse_ != nullptr) sparse_->load(from.sparse, folder + "/sparse.safetensors");
  if (!is_dealt_out()) {
    nn::load_module_state(task_.model(), from.model, model_file);
    optimizer_->load(from.optimizer, optimizer_file);
    if (average_) average_->load(from.average, average_file);
    return;
  }
  const auto weights = [this](const State& part, const std::string& file) {
    return gathered_.is_shared() ? gathered_.own_of(part, file) : part;
  };
  const auto states = [this](const State& part, const std::string& file) {
    return sharded_ != nullptr ? sharded_->own_of(part, file) : part;
  };
  take(from.model, own_weights(), weights, model_file);
  take(from.optimizer, optimizer_->state(), states, optimizer_file);
  if (average_) take(from.average, average_->state(), weights, average_file);
}

/// Copies what is this process's of a stored state into `own`, tensor by tensor. `sharded` makes of what its
/// part of the model has what ZeRO leaves it of that.
void SharedModel::take(const State& stored, const State& own,
                       const std::function<State(const State&, const std::string& file)>& sharded,
                       const std::string& file) const {
  const at::NoGradGuard no_gradients;
  const auto fail = [&](const std::string& name, const std::string& fault) {
    throw DataError(format("{}: tensor `{}` {}; the file belongs to another optimiser, model or recipe", file,
                           name, fault));
  };
  for (const auto& [name, tensor] : own) {
    const auto found = stored.find(name);
    if (found == stored.end()) fail(name, "is missing");
    const auto needed = whole_sizes(name, tensor);
    if (found->second.sizes() != at::IntArrayRef(needed))
      fail(name, format("has shape {}, {} is needed", shape_text(found->second.sizes()), shape_text(needed)));
  }
  for (const auto& item : stored)
    if (!own.contains(item.first)) fail(item.first, "has no place here");
  for (const auto& [name, tensor] : own) {
    const auto part = layers_.own(experts_.shares(weights_.shares({{name, stored.at(name)}})));
    tensor.copy_(sharded(part, file).at(name));
  }
}

StreamedCheckpoint SharedModel::checkpoint() const {
  const auto weights = [this](const State& own) {
    return gathered_.is_shared() ? gathered_.whole_of(own) : own;
  };
  const auto states = [this](const State& own) {
    return sharded_ != nullptr ? sharded_->whole_of(own) : own;
  };
  StreamedCheckpoint checkpoint;
  checkpoint.model = stream(own_weights(), weights);
  checkpoint.optimizer = stream(optimizer_->state(), states);
  if (average_) checkpoint.average = stream(average_->state(), weights);
  if (tables_ != nullptr)
    checkpoint.sparse = tables_->streamed_state();
  else if (sparse_ != nullptr)
    checkpoint.sparse = streamed(sparse_->state());
  return checkpoint;
}

/// `unsharded` makes tensors of this process's part of the model of what ZeRO's ranks have of them.
StreamedTensors SharedModel::stream(const State& own,
                                    const std::function<State(const State&)>& unsharded) const {
  if (!is_dealt_out()) return streamed(own);
  StreamedTensors tensors;
  for (const auto& [name, tensor] : own) {
    const auto bring = [this, unsharded, part = State{{name, tensor}}](const PutElements& put) {
      const auto unshared = unsharded(part);
      if (another_has_the_same()) return;
      const auto whole = weights_.whole_on_first(experts_.whole(layers_.whole(unshared)));
      if (team_.leads()) put(whole.at(part.begin()->first));
    };
    tensors.emplace(name, StreamedTensor{tensor.scalar_type(), whole_sizes(name, tensor), {}, bring});
  }
  return tensors;
}

/// Of a parameter or buffer, or of what is kept for a parameter ("PARAMETER.exp_avg").
std::vector<std::int64_t> SharedModel::whole_sizes(const std::string& name, const at::Tensor& own) const {
  auto found = sizes_.find(name);
  if (found == sizes_.end()) found = sizes_.find(name.substr(0, name.rfind('.')));
  return found == sizes_.end() ? own.sizes().vec() : found->second;
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
  if (sharded_ != nullptr)
    share.gradient_holder = [this](const std::string& name) { return sharded_->shard(name); };
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

/// Whether the first of the processes with this one's part of the model can speak for all of them.
bool SharedModel::another_has_the_same() const {
  return !experts_.deals() && team_.partners() != nullptr && team_.partners()->rank() > 0;
}

void SharedModel::join() {
  buckets_.reset();
  expert_buckets_.reset();
  average_.reset();
  sharded_ = nullptr;
  optimizer_.reset();
  const auto own = gathered_.join(task_.model());
  if (tables_ != nullptr) tables_->join();
  if (own.empty() || another_has_the_same()) return;
  layers_.join(task_.model(), own);
  if (layers_.is_split()) return;  // the first stage alone has all
  experts_.join(task_.model());
  if (team_.partners() != nullptr && team_.partners()->rank() > 0) return;
  weights_.join(task_.model());
}

}  // namespace stoa
