#include "stoa/dist/shard_state.h"

#include <ATen/ATen.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/dist/shards.h"
#include "stoa/tensor/shape.h"

namespace stoa::dist {

State gather_state(const State& shards, const FindWhole& find, Group& group) {
  const at::NoGradGuard no_gradients;
  State whole;
  for (const auto& [name, shard] : shards) {
    const auto* const owner = find(name);
    if (owner == nullptr) {
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

State deal_state(const State& whole, const FindWhole& find, const Group& group, const std::string& source) {
  State shards;
  for (const auto& [name, tensor] : whole) {
    const auto* const owner = find(name);
    if (owner == nullptr) {
      shards[name] = tensor;
      continue;
    }
    if (tensor.sizes() != owner->sizes())
      throw DataError(
          format("{}: tensor `{}` has shape {}, {} is needed; the file belongs to another optimiser, model "
                 "or recipe",
                 source, name, shape_text(tensor.sizes()), shape_text(owner->sizes())));
    shards[name] = shard_of(tensor.contiguous(), group.rank(), group.size());
  }
  return shards;
}

}  // namespace stoa::dist
