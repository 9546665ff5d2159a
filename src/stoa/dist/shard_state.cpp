#include "stoa/dist/shard_state.h"

#include <ATen/ATen.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/tensor/shape.h"

namespace stoa::dist {

State gather_state(const State& shards, const FindWhole& find, const ShardGroups& groups) {
  const at::NoGradGuard no_gradients;
  State whole;
  for (const auto& [name, shard] : shards) {  // in one order on all, so that nobody waits in a circle
    auto& group = groups.of(name);
    const auto* const owner = find(name);
    if (owner == nullptr || group.size() == 1) {
      if (group.rank() == 0) whole[name] = shard;
      continue;
    }
    if (group.rank() != 0) {
      if (shard.numel() > 0) group.start_send(shard, 0).wait();
      continue;
    }
    const auto elements = owner->numel();
    const auto flat = at::empty({elements}, shard.options());
    flat.narrow(0, 0, shard.numel()).copy_(shard);
    for (int rank = 1; rank < group.size(); ++rank) {
      const auto [begin, size] = shard_range(elements, rank, group.size());
      if (size > 0) group.start_receive(flat.narrow(0, begin, size), rank).wait();
    }
    whole[name] = flat.view(owner->sizes());
  }
  return whole;
}

State deal_state(const State& whole, const FindWhole& find, const ShardGroups& groups,
                 const std::string& source) {
  State shards;
  for (const auto& [name, tensor] : whole) {
    const auto& group = groups.of(name);
    const auto* const owner = find(name);
    if (owner == nullptr || group.size() == 1) {
      shards[name] = tensor;
      continue;
    }
    if (tensor.sizes() != owner->sizes())
      throw DataError(
          format("{}: tensor `{}` has shape {}, {} is needed; the file belongs to another optimiser, model "
                 "or recipe",
                 source, name, shape_text(tensor.sizes()), shape_text(owner->sizes())));
    const auto shard = shard_of(tensor.contiguous(), group.rank(), group.size());
    shards[name] = tensor.is_contiguous() ? shard : shard.clone();  // which does not hold a copy of the whole
  }
  return shards;
}

}  // namespace stoa::dist
