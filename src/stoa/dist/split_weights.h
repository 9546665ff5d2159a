#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stoa/dist/group.h"
#include "stoa/nn/parameters.h"
#include "stoa/nn/weight_split.h"
#include "stoa/optim/part.h"

namespace stoa::dist {

/// A model whose weight matrices are split over the ranks of a group (tensor parallelism): attention by
/// heads, perceptrons by hidden units, a vocabulary by tokens. The rest, norms and heads of classes among it,
/// every rank has whole and computes alike, to the bit. Every rank calls the same functions in the same
/// order.
class SplitWeights {
 public:
  /// Nothing is split.
  SplitWeights() = default;
  /// Keeps this rank's share of every weight that nn::SplitsWeights names. The ranks must hold equal models,
  /// without gradients. Throws ConfigError where nothing can be split, or a matrix not into so many parts.
  SplitWeights(torch::nn::Module& model, std::shared_ptr<Group> group);

  /// null where nothing is split.
  Group* group() const { return group_.get(); }
  /// Whether a parameter, or what an optimiser keeps for it ("PARAMETER.exp_avg"), is this rank's share.
  bool is_share(const std::string& name) const { return cut_of(name) != nullptr; }

  /// Adds up sums of squares, of each slice of each parameter that is trained, once or several times over, to
  /// those of whole weights. Empty where nothing is split.
  optim::SumOverParts sum_over_shares(const std::vector<nn::NamedParameter>& parameters) const;

  using State = std::map<std::string, at::Tensor>;
  /// Shares of weights, or of what an optimiser keeps for them, as one process has them.
  State whole(const State& shares) const;
  /// The same, on the first rank of the group; nothing on the others, which need no room.
  State whole_on_first(const State& shares) const;
  /// This rank's shares of what one process has; those of one slice are views of it.
  State shares(const State& whole) const;
  /// Makes the model's weights whole again, on every rank.
  void join(torch::nn::Module& model);

 private:
  struct Cut {
    nn::WeightCut cut;
    std::int64_t size;  ///< of the whole parameter along cut.dim
  };
  const Cut* cut_of(const std::string& name) const;

  std::shared_ptr<Group> group_;
  std::map<std::string, Cut> cuts_;  ///< by parameter
};

}  // namespace stoa::dist
