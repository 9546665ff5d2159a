#include <ATen/ATen.h>

#include <functional>

#include "stoa/dist/sequence/sequence_call.h"

// All keys and values on every rank: one all-gather, in the backward pass once more and a reduce-scatter of
// their gradients.
namespace stoa::dist {
namespace {

/// Calls work(rank, its keys, its values, what its tokens are) for each rank with anything to see, the own
/// first, while the others' are on their way.
void each_block(
    const SequenceCall& call, const at::Tensor& k, const at::Tensor& v,
    const std::function<void(int, const at::Tensor&, const at::Tensor&, const SequencePart&)>& work) {
  Group& group = call.group;
  const auto queries = call.part(group.rank());
  const auto visit = [&](int rank, const at::Tensor& block_k, const at::Tensor& block_v) {
    call.tell(SequenceStep::kAttend);
    call.computing([&] {
      const auto keys = call.part(rank);
      if (!call.sees_nothing(queries, keys)) work(rank, block_k, block_v, keys);
    });
  };
  Pending gathering;
  at::Tensor all;
  const auto wait = [&] {
    call.tell(SequenceStep::kWait);
    all = call.waiting([&] { return gathering.wait(); });
  };
  if (group.size() > 1) {
    call.tell(SequenceStep::kSend);
    gathering = group.start_all_gather(at::stack({k, v}));
    if (!call.options.overlap) wait();
  }
  visit(group.rank(), k, v);
  if (group.size() > 1 && call.options.overlap) wait();
  for (int rank = 0; rank < group.size(); ++rank)
    if (rank != group.rank()) visit(rank, all[rank][0], all[rank][1]);
}

}  // namespace

Attended attend_by_gather(const SequenceCall& call, const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v) {
  const auto queries = call.part(call.group.rank());
  auto state = ops::no_attention(q);
  each_block(call, k, v,
             [&](int, const at::Tensor& block_k, const at::Tensor& block_v, const SequencePart& keys) {
               ops::block_attention_update(state, q, block_k, block_v, call.block(queries, keys));
             });
  return {state.out, {q, k, v, state.out, state.log_sum}};
}

ops::BlockGradients gather_gradients(const SequenceCall& call, const std::vector<at::Tensor>& kept,
                                     const at::Tensor& grad_out) {
  const auto &q = kept[0], &k = kept[1], &v = kept[2];
  const ops::AttentionBlock whole{kept[3], kept[4]};
  const auto queries = call.part(call.group.rank());
  const auto delta = ops::block_attention_delta(whole.out, grad_out);
  const auto grad_q = zero_gradients(q);
  const auto grad_kv = zero_gradients(k, {call.group.size(), 2});
  each_block(call, k, v,
             [&](int rank, const at::Tensor& block_k, const at::Tensor& block_v, const SequencePart& keys) {
               ops::block_attention_backward({grad_q, grad_kv[rank][0], grad_kv[rank][1]}, q, block_k,
                                             block_v, whole, grad_out, delta, call.block(queries, keys));
             });
  const auto sums = call.waiting([&] { return call.group.reduce_scatter(grad_kv); });
  return {grad_q, sums[0], sums[1]};
}

}  // namespace stoa::dist
