#pragma once

#include <functional>

#include "stoa/dist/sequence/sequence_call.h"

// Rings of ranks, and blockwise ring attention over them. Internal to this folder.
namespace stoa::dist {

/// A ring through every `width`-th rank of a group of which consecutive `width` hold one block of the
/// sequence together: all ranks for a width of 1. At step s a rank has what the block `s` places before its
/// own began with.
class Ring {
 public:
  explicit Ring(const SequenceCall& call, int width = 1) : call_(call), width_(width) {}

  int blocks() const { return call_.group.size() / width_; }
  int own() const { return call_.group.rank() / width_; }
  int owner(int step) const { return (own() - step + blocks()) % blocks(); }
  SequencePart part(int block) const { return call_.part(block * width_, width_); }

  /// Calls work(owner, its tensor) for each block, own first, while the next is on its way: blocks - 1
  /// messages. `tensor` is written over, and what work is given only lasts until it returns.
  void circulate(const at::Tensor& tensor, const std::function<void(int, const at::Tensor&)>& work) const;
  /// The same for keys and values in one message, which are not written over: work(owner, keys, values).
  void circulate(const at::Tensor& k, const at::Tensor& v,
                 const std::function<void(int, const at::Tensor&, const at::Tensor&)>& work) const;

  /// What travels: each kind has a tag of its own.
  enum class Cargo { kBlock, kGradients };
  /// One step of a ring. Without overlap it is over on return.
  Pending exchange(const at::Tensor& out, const at::Tensor& in, Cargo cargo) const;
  void wait(Pending& pending, Cargo cargo) const;

 private:
  void finish(Pending& pending, Cargo cargo) const;

  const SequenceCall& call_;
  int width_;
};

/// Blockwise attention (sequence-parallelism.md 2.3) of this rank's block to all blocks of the ring: q
/// [batch, block, heads, head_dim] and so on.
ops::AttentionBlock ring_forward(const SequenceCall& call, const Ring& ring, std::int64_t first_head,
                                 const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);
ops::BlockGradients ring_backward(const SequenceCall& call, const Ring& ring, std::int64_t first_head,
                                  const std::vector<at::Tensor>& kept, const at::Tensor& grad_out);

}  // namespace stoa::dist
