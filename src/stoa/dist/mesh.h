#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "stoa/base/options.h"
#include "stoa/dist/group.h"
#include "stoa/dist/sequence/sequence_attention.h"
#include "stoa/dist/world.h"

namespace stoa::dist {

/// What becomes of sequences whose length cannot be split equally:
enum class UnevenLength {
  kPad,    ///< each batch is padded to the next length that can
  kRefuse  ///< read_recipe() refuses a recipe of such a length
};

/// How the processes share the work: the table [parallel] of a recipe.
struct ParallelOptions {
  std::int64_t data = 0;      ///< replicas, each with its part of the batch; 0: what the others leave
  std::int64_t sequence = 1;  ///< parts of every sequence
  std::int64_t tensor = 1;    ///< parts of every weight matrix
  std::int64_t pipeline = 1;  ///< stages of consecutive blocks
  std::int64_t expert = 1;    ///< replicas among which the experts of a mixture are dealt out; divides data
  SequenceMethod attention = SequenceMethod::kRing;  ///< among the parts of a sequence
  TokenOrder order = TokenOrder::kContiguous;        ///< in which they hold its tokens
  UnevenLength uneven = UnevenLength::kPad;
  std::int64_t ulysses = 1;  ///< for the hybrid attention: parts that share out heads
  std::int64_t zero = 0;     ///< ZeRO stage: 0 none, 1 optimiser states, 2 gradients too, 3 weights too
  double timeout = 60;       ///< seconds

  void visit(FieldVisitor& v);
  void validate() const;
  /// Processes needed, `data` being set.
  std::int64_t size() const { return data * sequence * tensor * pipeline; }
  /// The same with a `data` of 0 set to what the others leave of so many processes, at least 1. Throws
  /// ConfigError where `expert` does not divide it.
  ParallelOptions for_processes(std::int64_t processes) const;
  /// The same for a run that goes on with another number of processes: `data` is what is left, and where the
  /// other degrees do not fit any more, only the data are split.
  ParallelOptions refitted(std::int64_t processes) const;
};

/// Degrees of the mesh. rank = ((p D + d) S + s) T + t.
struct MeshShape {
  std::int64_t pipeline = 1, data = 1, sequence = 1, tensor = 1;
  std::int64_t expert = 1;  ///< size of the blocks of replicas that share one set of experts

  std::int64_t size() const { return pipeline * data * sequence * tensor; }
};

/// A rank's place on each axis.
struct Coordinates {
  std::int64_t pipeline = 0, data = 0, sequence = 0, tensor = 0;
  bool operator==(const Coordinates&) const = default;
};

/// What a rank has in common with the others of its group of each kind:
enum class GroupKind {
  kPipeline,      ///< all but the stage
  kData,          ///< all but the replica
  kSequence,      ///< all but the part of the sequence
  kTensor,        ///< all but the part of the matrices
  kDataSequence,  ///< stage and part of the matrices: who sums weight gradients and counts the targets
  kStage,         ///< the stage
  kExpert,        ///< all but the replica, and the block of `expert` consecutive ones
  kExpertData     ///< all but the replica, and the place in such a block: who sums gradients of experts
};
inline constexpr std::array kGroupKinds{GroupKind::kPipeline, GroupKind::kData,         GroupKind::kSequence,
                                        GroupKind::kTensor,   GroupKind::kDataSequence, GroupKind::kStage,
                                        GroupKind::kExpert,   GroupKind::kExpertData};

/// "pipeline", "data", "sequence", "tensor", "data_sequence", "stage", "expert", "expert_data".
const char* name_of(GroupKind kind);
Coordinates coordinates_of(const MeshShape& shape, std::int64_t rank);
std::int64_t rank_of(const MeshShape& shape, const Coordinates& place);
/// Every group of a kind, by its first rank; ranks ascend in each.
std::vector<std::vector<int>> groups_of(const MeshShape& shape, GroupKind kind);

/// The groups of this rank. Every rank of the world makes its mesh at the same point, with the same options.
class Mesh {
 public:
  /// Throws ConfigError that names all five numbers unless the world has pipeline x data x sequence x tensor
  /// ranks.
  Mesh(World& world, const ParallelOptions& asked);

  const MeshShape& shape() const { return shape_; }
  const Coordinates& coordinates() const { return place_; }
  Group& group(GroupKind kind) const { return *groups_[static_cast<std::size_t>(kind)]; }
  Group& pipeline() const { return group(GroupKind::kPipeline); }
  Group& data() const { return group(GroupKind::kData); }
  Group& sequence() const { return group(GroupKind::kSequence); }
  std::shared_ptr<Group> shared(GroupKind kind) const { return groups_[static_cast<std::size_t>(kind)]; }
  Group& tensor() const { return group(GroupKind::kTensor); }
  Group& data_sequence() const { return group(GroupKind::kDataSequence); }
  Group& stage() const { return group(GroupKind::kStage); }
  Group& expert() const { return group(GroupKind::kExpert); }
  Group& expert_data() const { return group(GroupKind::kExpertData); }
  Group& world() const { return *world_; }
  std::string table() const;

 private:
  MeshShape shape_;
  Coordinates place_;
  std::array<std::shared_ptr<Group>, kGroupKinds.size()> groups_;
  std::shared_ptr<Group> world_;
};

/// Every rank's place and every group, for people.
std::string mesh_table(const MeshShape& shape);

}  // namespace stoa::dist
