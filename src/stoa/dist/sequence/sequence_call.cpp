#include "stoa/dist/sequence/sequence_call.h"

#include <ATen/ATen.h>

namespace stoa::dist {

SequencePart SequencePart::narrow(std::int64_t begin, std::int64_t count) const {
  const auto some = [&](const at::Tensor& whole) {
    return whole.defined() ? whole.narrow(1, begin, count) : at::Tensor();
  };
  SequencePart part{positions.narrow(0, begin, count), some(documents), some(valid), first, last};
  if (count > 0) {
    part.first = part.positions.min().item<std::int64_t>();
    part.last = part.positions.max().item<std::int64_t>();
  }
  return part;
}

SequencePart SequenceCall::part(int first, int count) const {
  const int ranks = group.size();
  SequencePart part;
  part.positions = token_positions(options.order, chunk * ranks, ranks, first, count);
  const auto pick = [&](const at::Tensor& whole) {
    return whole.defined() ? whole.index_select(1, part.positions.to(whole.device())) : at::Tensor();
  };
  part.documents = pick(options.documents);
  part.valid = pick(options.valid);
  part.first = part.positions.min().item<std::int64_t>();
  part.last = part.positions.max().item<std::int64_t>();
  return part;
}

bool SequenceCall::sees_nothing(const SequencePart& queries, const SequencePart& keys) const {
  return (options.causal && keys.first > queries.last) ||
         (keys.valid.defined() && !keys.valid.any().item<bool>());
}

ops::BlockAttentionOptions SequenceCall::block(const SequencePart& queries, const SequencePart& keys,
                                               std::int64_t first_head) const {
  ops::BlockAttentionOptions block;
  block.mask = {options.causal,    queries.positions, keys.positions,
                queries.documents, keys.documents,    keys.valid};
  block.dropout = options.dropout;
  block.dropout.first_head += first_head;
  block.scale = options.scale;
  return block;
}

at::ScalarType sum_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor zero_gradients(const at::Tensor& x, std::vector<std::int64_t> copies) {
  copies.insert(copies.end(), x.sizes().begin(), x.sizes().end());
  return at::zeros(copies, x.options().dtype(sum_type(x)));
}

}  // namespace stoa::dist
