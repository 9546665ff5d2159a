#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "stoa/dist/expert_parallel.h"
#include "stoa/dist/mesh.h"
#include "stoa/dist/sequence/split_tokens.h"
#include "stoa/dist/split_layers.h"
#include "stoa/dist/split_weights.h"
#include "stoa/dist/world.h"
#include "stoa/nn/embedding_exchange.h"

namespace stoa {

/// The processes that make one run together, started by `stoa launch`, torchrun, Slurm or MPI. A process that
/// was started alone is a team of its own and exchanges nothing.
class Team {
 public:
  /// Meets the others, if there are any, and deals out the work as the recipe says. Throws ConfigError where
  /// the recipe needs another number of processes, DistributedError where some do not come.
  explicit Team(const dist::ParallelOptions& options);

  bool alone() const { return !mesh_; }
  /// Rank 0, which alone writes the run folder and reports.
  bool leads() const { return alone() || world_->rank() == 0; }
  /// Of every batch this process has part `part` of `parts`.
  std::int64_t part() const { return alone() ? 0 : mesh_->coordinates().data; }
  std::int64_t parts() const { return alone() ? 1 : mesh_->shape().data; }
  bool splits_sequences() const { return !alone() && mesh_->sequence().size() > 1; }
  /// How sequences are split; nothing where they are not.
  dist::SequenceSplit split() const;
  /// The model with this process's share of its weights, where they are split. Every process calls it.
  dist::SplitWeights split_weights(torch::nn::Module& model) const;
  /// The model with this process's experts, and its mixtures as those of one process; `together` as
  /// dist::ExpertParallel says. Every process calls it.
  dist::ExpertParallel share_experts(torch::nn::Module& model, bool together) const;
  /// The model with this process's layers, where they are split; after its weights are. Every process calls
  /// it.
  dist::SplitLayers split_layers(torch::nn::Module& model) const;
  /// The processes that see other samples or other parts of the sequences, with which gradients are added;
  /// null for none.
  dist::Group* partners() const {
    return alone() || mesh_->data_sequence().size() == 1 ? nullptr : &mesh_->data_sequence();
  }
  /// The processes that have this one's place but see other samples; null for none.
  std::shared_ptr<dist::Group> replicas() const {
    return parts() == 1 ? nullptr : mesh_->shared(dist::GroupKind::kData);
  }
  /// What splits the rows of a task's tables over the partners; null for none.
  std::shared_ptr<nn::RowExchange> row_exchange() const;

  /// Throws DistributedError on every rank, naming those that differ, unless all have the same text.
  void agree(const std::string& what, const std::string& text) const;
  /// Rank 0's text.
  std::string of_leader(const std::string& text) const;
  /// Whether any of them says yes.
  bool any(bool yes) const;
  /// ", 4 processes", empty for one.
  std::string text() const;

 private:
  dist::ParallelOptions options_;
  std::shared_ptr<dist::World> world_;
  std::optional<dist::Mesh> mesh_;
};

}  // namespace stoa
