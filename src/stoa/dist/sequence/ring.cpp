#include "stoa/dist/sequence/ring.h"

#include <ATen/ATen.h>

#include <utility>

namespace stoa::dist {
namespace {

constexpr int kBlockTag = 0, kGradientTag = 1;

/// Gradients of keys and values that go round with the block they belong to, one step behind it: while a rank
/// works on its part of a block's, those of the ranks before it are on their way. Of the two tensors for own
/// parts, one is being sent while the other is filled.
class TravellingGradients {
 public:
  TravellingGradients(const Ring& ring, const at::Tensor& k) : ring_(ring), part_(zero_gradients(k, {2})) {
    if (ring.blocks() > 1) {
      sent_ = at::zeros_like(part_);
      arrived_ = at::empty_like(part_);
    }
  }

  /// Zeros, for this rank's part of the present block's gradients.
  const at::Tensor& part() const { return part_; }

  /// The part is done: adds what the ranks before found, and sends it on.
  void pass_on(const SequenceCall& call) {
    if (ring_.blocks() == 1) return;
    if (begun_) {
      ring_.wait(travelling_);
      call.computing([&] { part_.add_(arrived_); });
    }
    begun_ = true;
    travelling_ = ring_.exchange(part_, arrived_, kGradientTag);
    std::swap(part_, sent_);
    if (++steps_ < ring_.blocks()) call.computing([&] { part_.zero_(); });
  }

  /// The sum over all ranks for the own block, [2, batch, block, kv_heads, head_dim], once it has come home.
  at::Tensor finish() {
    if (ring_.blocks() == 1) return part_;
    ring_.wait(travelling_);
    return arrived_;
  }

 private:
  const Ring& ring_;
  at::Tensor part_, sent_, arrived_;
  Pending travelling_;
  bool begun_ = false;
  int steps_ = 0;
};

}  // namespace

Pending Ring::exchange(const at::Tensor& out, const at::Tensor& in, int tag) const {
  Group& group = call_.group;
  const int size = group.size(), next = (group.rank() + width_) % size,
            previous = (group.rank() - width_ + size) % size;
  Pending pending = group.start_exchange(out, next, in, previous, tag);
  if (!call_.options.overlap) wait(pending);
  return pending;
}

void Ring::wait(Pending& pending) const {
  call_.waiting([&] { pending.wait(); });
}

void Ring::circulate(const at::Tensor& tensor,
                     const std::function<void(int, const at::Tensor&)>& work) const {
  at::Tensor here = tensor, spare = blocks() > 1 ? at::empty_like(tensor) : at::Tensor();
  for (int step = 0; step < blocks(); ++step) {
    Pending arriving;
    if (step + 1 < blocks()) arriving = exchange(here, spare, kBlockTag);
    work(owner(step), here);
    wait(arriving);
    std::swap(here, spare);
  }
}

void Ring::circulate(const at::Tensor& k, const at::Tensor& v,
                     const std::function<void(int, const at::Tensor&, const at::Tensor&)>& work) const {
  if (blocks() == 1) return work(own(), k, v);
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
  const auto queries = ring.part(ring.own());
  const auto delta = ops::block_attention_delta(whole.out, grad_out);
  const auto grad_q = zero_gradients(q);
  TravellingGradients gradients(ring, k);
  ring.circulate(k, v, [&](int owner, const at::Tensor& block_k, const at::Tensor& block_v) {
    call.computing([&] {
      const auto keys = ring.part(owner);
      if (call.sees_nothing(queries, keys)) return;
      const auto& part = gradients.part();
      ops::block_attention_backward({grad_q, part[0], part[1]}, q, block_k, block_v, whole, grad_out, delta,
                                    call.block(queries, keys, first_head));
    });
    gradients.pass_on(call);
  });
  const auto sums = gradients.finish();
  return {grad_q, sums[0], sums[1]};
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
