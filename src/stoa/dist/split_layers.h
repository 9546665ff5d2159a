#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stoa/dist/group.h"
#include "stoa/nn/layer_split.h"
#include "stoa/nn/parameters.h"
#include "stoa/optim/part.h"

namespace stoa::dist {

/// The layers that a stage has of so many: stages differ by one layer at most.
nn::LayerRange layers_of_stage(std::int64_t layers, std::int64_t stage, std::int64_t stages);

/// A model whose layers are split over the ranks of a group (pipeline parallelism), rank 0 with the first. A
/// rank keeps the parameters that its layers use and gives up the others, which stay in the model without
/// rows. What several ranks use (a tied embedding, shared layers) each of them has; the first one counts as
/// its owner. Every rank calls the same functions in the same order.
class SplitLayers {
 public:
  /// Nothing is split.
  SplitLayers() = default;
  /// Keeps this rank's layers. The ranks must hold equal models, without gradients. Throws ConfigError where
  /// the model, an nn::SplitsLayers, cannot be split into so many stages, or is on a GPU.
  SplitLayers(torch::nn::Module& model, std::shared_ptr<Group> group);

  bool is_split() const { return group_ != nullptr; }
  std::int64_t stage() const { return is_split() ? group_->rank() : 0; }
  std::int64_t stages() const { return is_split() ? group_->size() : 1; }

  /// Adds up sums of squares, of each slice of each parameter that is trained, once or several times over, to
  /// those of all ranks; what several ranks have counts once. After `within`, which adds them up over
  /// processes that have other parts of the same layers; may be empty. Empty where nothing is to be added up.
  optim::SumOverParts sum_over_stages(const std::vector<nn::NamedParameter>& parameters,
                                      optim::SumOverParts within) const;
  /// Finds the tensor that has this rank's gradient of a parameter by its name.
  using FindHolder = std::function<at::Tensor(const std::string&)>;
  /// At the end of a step: makes the gradient of each parameter that several ranks use the sum of theirs,
  /// equal to the bit on all. `holder`, where gradients are dealt out besides: finds the same elements of
  /// them on all ranks.
  void add_shared_gradients(const FindHolder& holder = {}) const;

  using State = std::map<std::string, at::Tensor>;
  /// Parameters, or what an optimiser keeps for them ("PARAMETER.exp_avg"), of all ranks, on rank 0; nothing
  /// on the others.
  State whole(const State& own) const;
  /// This rank's of what one process has.
  State own(const State& whole) const;
  /// Makes the model whole again on rank 0. The others are of no more use. `own` is the model's state, or
  /// some of it, on every rank the same parameters.
  void join(torch::nn::Module& model, const State& own);

  /// The last rank's text and numbers.
  std::string of_last(const std::string& text) const;
  std::vector<double> of_last(const std::vector<double>& numbers) const;

  class Line;  ///< internal

 private:
  struct Parameter {
    std::string name;
    at::Tensor tensor;
    std::vector<std::int64_t> sizes;
    std::vector<int> ranks;  ///< that use it, ascending
    int owner() const { return ranks.front(); }
    bool is_used_by(int rank) const;
  };
  /// The parameter that a name is of, or a state's name; null for none.
  const Parameter* parameter_of(const std::string& name) const;
  void sum_gradients(const std::vector<at::Tensor>& holders, const std::vector<int>& ranks) const;

  std::shared_ptr<Group> group_;
  std::shared_ptr<Line> line_;
  std::map<std::string, Parameter> parameters_;
};

}  // namespace stoa::dist
