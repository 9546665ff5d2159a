#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

// How the elements of tensors are dealt out to ranks: of a tensor of n elements, flattened, rank r owns
// `width` = ceil(n / ranks) from r x width on; the last ranks what is left, perhaps none.
namespace stoa::dist {

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

/// Tensors of one type and device as [ranks, sum of widths]: row r holds the shards of rank r one after the
/// other, each filled up with zeros to its tensor's width.
at::Tensor deal(const std::vector<at::Tensor>& tensors, int ranks);
/// One row of it, from a rank's own shards of tensors with so many elements each.
at::Tensor dealt_row(const std::vector<at::Tensor>& shards, const std::vector<std::int64_t>& elements,
                     int ranks);
/// The reverse: writes the shards of all ranks, `rows` as deal() makes them, into contiguous tensors.
void collect(const at::Tensor& rows, const std::vector<at::Tensor>& tensors);

}  // namespace stoa::dist
