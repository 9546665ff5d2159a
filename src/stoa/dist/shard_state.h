#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>

#include "stoa/dist/group.h"

// What a checkpoint holds of parameters whose shards (shards.h) the ranks of a group have.
namespace stoa::dist {

using State = std::map<std::string, at::Tensor>;
/// The whole tensor, of which only the shape is read, whose shard a state has under a name ("PARAMETER",
/// "PARAMETER.exp_avg"); null for what every rank has whole.
using FindWhole = std::function<const at::Tensor*(const std::string& name)>;

/// The state that one process would have, on rank 0; nothing on the others. Only rank 0 needs room for more
/// than a shard at a time. Throws DistributedError.
State gather_state(const State& shards, const FindWhole& find, Group& group);

/// This rank's shards of a state that one process has. Throws DataError that names `source` for a tensor of
/// another shape.
State deal_state(const State& whole, const FindWhole& find, const Group& group, const std::string& source);

}  // namespace stoa::dist
