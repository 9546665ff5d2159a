#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stoa/dist/expert_parallel.h"
#include "stoa/dist/gathered_weights.h"
#include "stoa/dist/gradient_buckets.h"
#include "stoa/dist/sharded_optimizer.h"
#include "stoa/dist/split_layers.h"
#include "stoa/dist/split_weights.h"
#include "stoa/nn/embedding_exchange.h"
#include "stoa/optim/average.h"
#include "stoa/optim/optimizer.h"
#include "stoa/train/checkpoint.h"
#include "stoa/train/recipe.h"
#include "stoa/train/task.h"
#include "stoa/train/team.h"
#include "stoa/train/training_step.h"

namespace stoa {

/// A task's model, its optimiser and its tables, of which this process has what the recipe's [parallel] deals
/// it: all of them where it is alone. Every process of the team calls the same functions in the same order.
class SharedModel {
 public:
  /// Splits the model, whose weights are those a run begins with. Throws ConfigError for what cannot be split
  /// so.
  SharedModel(Recipe& recipe, Task& task, const Team& team);
  SharedModel(const SharedModel&) = delete;
  SharedModel& operator=(const SharedModel&) = delete;

  optim::Optimizer& optimizer() { return *optimizer_; }
  /// Of the task; null where it has none.
  nn::SparseWeights* sparse() const { return sparse_; }
  /// Averages of the weights that are here; null where the recipe keeps none.
  optim::MovingAverage* average() { return average_.get(); }

  /// Takes what is this process's of a checkpoint. `folder` stands in front of messages. Throws DataError.
  void load(const Checkpoint& from, const std::string& folder);
  /// Weights, states, averages and tables as one process has them, for rank 0 to write. What is dealt out
  /// comes together tensor by tensor: rank 0 saves it while the others bring() it; before the next step.
  StreamedCheckpoint checkpoint() const;
  /// Whether saving needs processes that may still be within a forward pass, where one of them has failed.
  bool saving_needs_others() const { return is_dealt_out() || (tables_ != nullptr && tables_->is_split()); }

  /// To be held while the model runs, forward and backward: brings the weights that no process has whole.
  dist::GatheredWeights::Pass pass() const { return gathered_.pass(); }
  /// What this process has of the step whose random choices come from `seed`.
  StepShare share(std::uint64_t seed) const;
  /// What layers keep of batches, running means say, becomes that of the whole batch.
  void average_buffers();
  /// The norm of all gradients together; `norm` is that of the parameters.
  double joint_norm(double norm) const;
  /// The first parameter of which a gradient is not finite; empty for none.
  std::string first_not_finite() const;

  /// Makes all weights whole on rank 0, which goes on alone; optimiser and averages are given up, the others
  /// of no more use.
  void join();

 private:
  using State = std::map<std::string, at::Tensor>;
  using Sizes = std::map<std::string, std::vector<std::int64_t>>;

  /// Whether other processes have parts of weights or of the optimiser's state.
  bool is_dealt_out() const {
    return weights_.group() != nullptr || experts_.deals() || layers_.is_split() || sharded_ != nullptr;
  }
  bool another_has_the_same() const;
  State own_weights() const;
  void take(const State& stored, const State& own,
            const std::function<State(const State&, const std::string& file)>& sharded,
            const std::string& file) const;
  StreamedTensors stream(const State& own, const std::function<State(const State&)>& unsharded) const;
  std::vector<std::int64_t> whole_sizes(const std::string& name, const at::Tensor& own) const;
  dist::GatheredWeights gather_weights() const;
  std::unique_ptr<optim::Optimizer> make_optimizer();
  void make_buckets();
  std::vector<nn::NamedParameter> parameters(bool dealt) const;
  void require_room() const;

  Recipe& recipe_;
  Task& task_;
  const Team& team_;
  BatchShare batch_;  // of each batch
  Sizes sizes_;       // of the model's tensors before anything was dealt out
  dist::SplitWeights weights_;
  dist::ExpertParallel experts_;
  dist::SplitLayers layers_;
  dist::GatheredWeights gathered_;
  dist::ShardedOptimizer* sharded_ = nullptr;  // optimizer_, where its state is shared out
  std::unique_ptr<optim::Optimizer> optimizer_;
  std::unique_ptr<dist::GradientBuckets> buckets_, expert_buckets_;
  nn::SparseWeights* sparse_;
  nn::SplitsRows* tables_;  // the same, where rows can be split
  std::unique_ptr<optim::MovingAverage> average_;
};

}  // namespace stoa
