#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "stoa/dist/mesh.h"
#include "stoa/dist/sequence/split_tokens.h"
#include "stoa/dist/world.h"

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
  /// The processes that see other samples or other parts of the sequences, with which gradients are added;
  /// null for none.
  dist::Group* partners() const {
    return alone() || mesh_->data_sequence().size() == 1 ? nullptr : &mesh_->data_sequence();
  }

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
