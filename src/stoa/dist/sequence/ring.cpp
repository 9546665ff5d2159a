#include "stoa/dist/sequence/ring.h"

#include <ATen/ATen.h>

#include <utility>

namespace stoa::dist {
namespace {

/// Gradients of keys and values that go round with the block they belong to, one step behind it: while a rank
/// works on its part of a block's, those of the ranks before it are on their way. Of the two tensors for own
/// parts, one is being sent while the other is filled. Of two ranks' blocks, each rank's own part stays where
/// it is, which saves one message of two.
class TravellingGradients {
 public:
  TravellingGradients(const SequenceCall& call, const Ring& ring, const at::Tensor& k)
      : call_(call), ring_(ring), part_(zero_gradients(k, {2})) {
    if (ring.blocks() > 1) {
      other_ = at::zeros_like(part_);
      arrived_ = at::empty_like(part_);
    }
  }

  /// Where to add this rank's part of the present block's gradients; once the last was passed on, of its own
  /// block's again.
  const at::Tensor& part() const { return part_; }

  /// The part is done: adds what the ranks before found, and sends it on.
  void pass_on() {
    const int step = steps_++;
    if (ring_.blocks() == 1) return;
    if (ring_.blocks() > 2 || step > 0) {
      if (begun_) {
        ring_.wait(travelling_, Ring::Cargo::kGradients);
        call_.computing([&] { part_.add_(arrived_); });
      }
      begun_ = true;
      travelling_ = ring_.exchange(part_, arrived_, Ring::Cargo::kGradients);
    }
    std::swap(part_, other_);
    if (ring_.blocks() > 2 && step > 0) call_.computing([&] { part_.zero_(); });
  }

  /// The sum over all ranks for the own block, [2, batch, block, kv_heads, head_dim], once it has come home.
  at::Tensor finish() {
    if (ring_.blocks() == 1) return part_;
    ring_.wait(travelling_, Ring::Cargo::kGradients);
    call_.computing([&] { part_.add_(arrived_); });
    return part_;
  }

 private:
  const SequenceCall& call_;
  const Ring& ring_;
  at::Tensor part_, other_, arrived_;
  Pending travelling_;
  bool begun_ = false;
  int steps_ = 0;
};

/// Queries whose gradients are wanted, with all that their backward pass needs beside keys.
struct QueryRows {
  at::Tensor q, grad_out, delta, grad_q;
  ops::AttentionBlock whole;
  SequencePart part;

  QueryRows narrow(std::int64_t begin, std::int64_t count) const {
    const auto rows = [&](const at::Tensor& x) { return x.narrow(1, begin, count); };
    return {rows(q),
            rows(grad_out),
            delta.narrow(2, begin, count).contiguous(),
            rows(grad_q),
            {rows(whole.out), whole.log_sum.narrow(2, begin, count).contiguous()},
            part.narrow(begin, count)};
  }
};

}  // namespace

Pending Ring::exchange(const at::Tensor& out, const at::Tensor& in, Cargo cargo) const {
  Group& group = call_.group;
  const int size = group.size(), next = (group.rank() + width_) % size,
            previous = (group.rank() - width_ + size) % size;
  call_.tell(cargo == Cargo::kBlock ? SequenceStep::kSend : SequenceStep::kSum);
  Pending pending = group.start_exchange(out, next, in, previous, static_cast<int>(cargo));
  if (!call_.options.overlap) finish(pending, cargo);
  return pending;
}

void Ring::wait(Pending& pending, Cargo cargo) const {
  if (call_.options.overlap) finish(pending, cargo);
}

void Ring::finish(Pending& pending, Cargo cargo) const {
  call_.tell(cargo == Cargo::kBlock ? SequenceStep::kWait : SequenceStep::kWaitForSum);
  call_.waiting([&] { pending.wait(); });
}

void Ring::circulate(const at::Tensor& tensor,
                     const std::function<void(int, const at::Tensor&)>& work) const {
  at::Tensor here = tensor, spare = blocks() > 1 ? at::empty_like(tensor) : at::Tensor();
  for (int step = 0; step < blocks(); ++step) {
    const bool last = step + 1 == blocks();
    Pending arriving;
    if (!last) arriving = exchange(here, spare, Cargo::kBlock);
    call_.tell(SequenceStep::kAttend);
    work(owner(step), here);
    if (!last) wait(arriving, Cargo::kBlock);
    std::swap(here, spare);
  }
}

void Ring::circulate(const at::Tensor& k, const at::Tensor& v,
                     const std::function<void(int, const at::Tensor&, const at::Tensor&)>& work) const {
  if (blocks() == 1) {
    call_.tell(SequenceStep::kAttend);
    return work(own(), k, v);
  }
  circulate(at::stack({k, v}), [&](int owner, const at::Tensor& both) { work(owner, both[0], both[1]); });
}

ops::AttentionBlock ring_forward(const SequenceCall& call, const Ring& ring, std::int64_t first_head,
                                 const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const auto queries = ring.part(ring.own());
  auto state = ops::no_attention(q);
  ring.circulate(k, v, [&](int owner, const at::Tensor& block_k, const at::Tensor& block_v) {
    call.computing([&] {
      const auto keys = ring.part(owner);
      if (call.sees_nothing(queries, keys)) return;
      ops::block_attention_update(state, q, block_k, block_v, call.block(queries, keys, first_head));
    });
  });
  return state;
}

ops::BlockGradients ring_backward(const SequenceCall& call, const Ring& ring, std::int64_t first_head,
                                  const std::vector<at::Tensor>& kept, const at::Tensor& grad_out) {
  const auto &q = kept[0], &k = kept[1], &v = kept[2];
  const ops::AttentionBlock whole{kept[3], kept[4]};
  const QueryRows rows{q,
                       grad_out,
                       ops::block_attention_delta(whole.out, grad_out),
                       zero_gradients(q),
                       whole,
                       ring.part(ring.own())};
  TravellingGradients gradients(call, ring, k);
  const auto attend = [&](const QueryRows& queries, int owner, const at::Tensor& block_k,
                          const at::Tensor& block_v) {
    call.computing([&] {
      const auto keys = ring.part(owner);
      if (queries.q.numel() == 0 || call.sees_nothing(queries.part, keys)) return;
      const auto& part = gradients.part();
      ops::block_attention_backward({queries.grad_q, part[0], part[1]}, queries.q, block_k, block_v,
                                    queries.whole, queries.grad_out, queries.delta,
                                    call.block(queries.part, keys, first_head));
    });
  };
  // half of the queries see the own block while the next one's keys come, the others while its gradients come
  const std::int64_t count = q.size(1), half = ring.blocks() > 1 ? count / 2 : count;
  ring.circulate(k, v, [&](int owner, const at::Tensor& block_k, const at::Tensor& block_v) {
    attend(owner == ring.own() ? rows.narrow(0, half) : rows, owner, block_k, block_v);
    gradients.pass_on();
  });
  if (half < count) {
    call.tell(SequenceStep::kAttend);
    attend(rows.narrow(half, count - half), ring.own(), k, v);
  }
  const auto sums = gradients.finish();
  return {rows.grad_q, sums[0], sums[1]};
}

Attended attend_by_ring(const SequenceCall& call, const at::Tensor& q, const at::Tensor& k,
                        const at::Tensor& v) {
  const auto [out, log_sum] = ring_forward(call, Ring(call), 0, q, k, v);
  return {out, {q, k, v, out, log_sum}};
}

ops::BlockGradients ring_gradients(const SequenceCall& call, const std::vector<at::Tensor>& kept,
                                   const at::Tensor& grad_out) {
  return ring_backward(call, Ring(call), 0, kept, grad_out);
}

}  // namespace stoa::dist
