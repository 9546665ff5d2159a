#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stoa/dist/group.h"
#include "stoa/dist/shards.h"
#include "stoa/nn/parameters.h"
#include "stoa/optim/optimizer.h"
#include "stoa/optim/part.h"

namespace stoa::dist {

/// Who shares a model's mixtures of experts.
struct ExpertGroups {
  std::shared_ptr<Group> data;         ///< processes with the parts of a batch
  std::shared_ptr<Group> expert;       ///< those among which the experts are dealt out
  std::shared_ptr<Group> expert_data;  ///< those that hold the same experts
};

/// A model whose mixtures compute what those of one process do: tokens are routed as those of the whole
/// batch, and the experts of each mixture are dealt out, consecutive ones of equal number to each rank of a
/// group. All else every rank has whole. Every rank calls the same functions in the same order.
class ExpertParallel {
 public:
  /// Nothing is shared.
  ExpertParallel() = default;
  /// Keeps this rank's experts of every mixture. The ranks must hold equal models, without gradients.
  /// `together` says that the processes' training batches are parts of one and make one forward pass each;
  /// otherwise each routes the tokens of its own passes. Throws ConfigError where there is no mixture, or
  /// one whose experts cannot be dealt out evenly.
  ExpertParallel(torch::nn::Module& model, ExpertGroups groups, bool together);

  /// Whether ranks meet within forward and backward passes: none may skip one.
  bool meets() const { return meets_; }
  /// Whether experts are dealt out.
  bool deals() const { return !dealt_.empty(); }
  /// Whether a parameter, or what an optimiser keeps for it ("PARAMETER.exp_avg"), is of this rank's experts.
  bool is_dealt(const std::string& name) const { return experts_of(name) > 0; }
  /// The processes that hold the same experts, with which their gradients are summed; null for none.
  Group* partners() const;

  /// The options that treat this rank's experts as one process's options treat all: a single expert's biases
  /// look like a matrix.
  optim::OptimizerOptions options_for(const std::vector<nn::NamedParameter>& parameters,
                                      optim::OptimizerOptions options) const;
  /// Makes the norm of all gradients together from those here and of other ranks' experts, for an update rule
  /// of these parameters. Empty where nothing is dealt out.
  optim::JointSquare joint_square(const std::vector<nn::NamedParameter>& parameters) const;
  /// Among whom parameters can be dealt out besides: experts among those that hold the same, all else among
  /// `all`. For as long as this is where it is.
  ShardGroups shard_groups(Group& all) const;

  using State = std::map<std::string, at::Tensor>;
  /// What one process has, on the first rank of the group; on others its experts have no rows.
  State whole(const State& shares) const;
  /// This rank's part of what one process has: views of it.
  State shares(const State& whole) const;
  /// Ends the sharing. The model is whole on the first rank of the group, and of no more use on others.
  void join(torch::nn::Module& model);

 private:
  /// Experts of the mixture that a name belongs to; 0 for none.
  std::int64_t experts_of(const std::string& name) const;
  at::Tensor whole_of(const at::Tensor& share) const;

  ExpertGroups groups_;
  std::map<std::string, std::int64_t> dealt_;  ///< experts, all together, by parameter
  bool meets_ = false;
};

/// Whether a model has a mixture whose tokens are routed.
bool has_mixtures(torch::nn::Module& model);

}  // namespace stoa::dist
