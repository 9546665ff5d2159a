#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>

#include "stoa/dist/shards.h"

// What a checkpoint holds of parameters whose shards (shards.h) the ranks of a group have.
namespace stoa::dist {

using State = std::map<std::string, at::Tensor>;
/// The whole tensor, of which only the shape is read, whose shard a state has under a name ("PARAMETER",
/// "PARAMETER.exp_avg"); null for what every rank has whole.
using FindWhole = std::function<const at::Tensor*(const std::string& name)>;

/// The state that there would be without shards, on rank 0 of each group: of those with the same experts,
/// too, which has these alone, unless it is rank 0 of all. Nothing on the others. Only such ranks need room
/// for more than a shard at a time. Throws DistributedError.
State gather_state(const State& shards, const FindWhole& find, const ShardGroups& groups);

/// This rank's shards of a state without shards. Throws DataError that names `source` for a tensor of another
/// shape.
State deal_state(const State& whole, const FindWhole& find, const ShardGroups& groups,
                 const std::string& source);

}  // namespace stoa::dist
