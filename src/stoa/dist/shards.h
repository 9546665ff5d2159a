#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "stoa/dist/group.h"
#include "stoa/nn/parameters.h"

// How the elements of tensors are dealt out to ranks: of a tensor of n elements, flattened, rank r owns
// `width` = ceil(n / ranks) from r x width on; the last ranks what is left, perhaps none.
namespace stoa::dist {

/// Among whom parameters are dealt out: all ranks, or those that hold the same experts. The groups must
/// outlive this.
class ShardGroups {
 public:
  ShardGroups(Group& all) : all_(&all) {}  // NOLINT: a group is one of these
  /// `is_expert` tells parameters that the ranks of `experts` alone have by their names, and what an
  /// optimiser keeps for them ("PARAMETER.exp_avg").
  ShardGroups(Group& all, Group& experts, std::function<bool(const std::string&)> is_expert)
      : all_(&all), experts_(&experts), is_expert_(std::move(is_expert)) {}

  Group& all() const { return *all_; }
  /// Null where all ranks have the same.
  Group* experts() const { return experts_; }
  bool is_expert(const std::string& name) const { return experts_ != nullptr && is_expert_(name); }
  Group& of(const std::string& name) const { return is_expert(name) ? *experts_ : *all_; }

 private:
  Group *all_, *experts_ = nullptr;
  std::function<bool(const std::string&)> is_expert_;
};

std::int64_t shard_width(std::int64_t elements, int ranks);

/// First element of a rank's shard, and how many it has.
struct ShardRange {
  std::int64_t begin = 0, size = 0;
};
ShardRange shard_range(std::int64_t elements, int rank, int ranks);

/// A view [size] of a rank's shard, detached. The tensor must be contiguous.
at::Tensor shard_of(const at::Tensor& tensor, int rank, int ranks);

/// Tensors to be sent together: neighbours of one type and device, each batch of some more than `bytes`.
std::vector<std::vector<std::size_t>> cut_batches(const std::vector<at::Tensor>& tensors, std::int64_t bytes);

/// Parameters that are gathered together.
struct ShardBatch {
  Group* group;
  std::vector<std::size_t> members;
};
/// The same of `chosen` parameters by their groups, all ranks' first. What a rank has alone is left out.
std::vector<ShardBatch> cut_batches(const std::vector<nn::NamedParameter>& parameters,
                                    const std::vector<std::size_t>& chosen, const ShardGroups& groups,
                                    std::int64_t bytes);

/// Tensors of one type and device as [ranks, sum of widths]: row r holds the shards of rank r one after the
/// other, each filled up with zeros to its tensor's width.
at::Tensor deal(const std::vector<at::Tensor>& tensors, int ranks);
/// One row of it, from a rank's own shards of tensors with so many elements each.
at::Tensor dealt_row(const std::vector<at::Tensor>& shards, const std::vector<std::int64_t>& elements,
                     int ranks);
/// The reverse: writes the shards of all ranks, `rows` as deal() makes them, into contiguous tensors.
void collect(const at::Tensor& rows, const std::vector<at::Tensor>& tensors);

}  // namespace stoa::dist
