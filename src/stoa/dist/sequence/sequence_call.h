#pragma once

#include <ATen/core/ivalue.h>

#include <chrono>
#include <functional>
#include <utility>
#include <vector>

#include "stoa/dist/sequence/sequence_attention.h"

// What the methods of sequence_attention.h share. Internal to this folder.
namespace stoa::dist {

/// Tokens that some ranks hold.
struct SequencePart {
  at::Tensor positions;              ///< [tokens] int64 in the whole sequence
  at::Tensor documents, valid;       ///< [batch, tokens], undefined where the call has none
  std::int64_t first = 0, last = 0;  ///< lowest and highest position

  /// `count` of them from the `begin`-th on.
  SequencePart narrow(std::int64_t begin, std::int64_t count) const;
};

/// What a rank is about to do.
enum class SequenceStep {
  kSend,       ///< a message to a neighbour, and the receiving of one from the other, are about to be started
  kSum,        ///< the same of gradients
  kAttend,     ///< arithmetic on a block of keys
  kWait,       ///< waiting for the messages of kSend
  kWaitForSum  ///< and of kSum
};

/// A checked call; what its backward pass needs beside tensors.
struct SequenceCall : torch::CustomClassHolder {
  SequenceCall(Group& g, SequenceAttentionOptions o) : group(g), options(std::move(o)) {}

  Group& group;
  SequenceAttentionOptions options;
  std::int64_t chunk = 0;  ///< tokens of a rank
  std::int64_t heads = 0, kv_heads = 0;
  std::function<void(SequenceStep)> watch;  ///< told of each step, where there is one: for tests

  void tell(SequenceStep step) const {
    if (watch) watch(step);
  }
  /// The tokens of ranks [first, first + count).
  SequencePart part(int first, int count = 1) const;
  /// True where no query sees any of the keys, as far as that shows at a glance.
  bool sees_nothing(const SequencePart& queries, const SequencePart& keys) const;
  /// For one block; first_head is that of the heads at hand among the call's.
  ops::BlockAttentionOptions block(const SequencePart& queries, const SequencePart& keys,
                                   std::int64_t first_head = 0) const;

  template <class Work>
  auto computing(const Work& work) const {
    return timed(&SequenceTimings::computed_s, work);
  }
  template <class Work>
  auto waiting(const Work& work) const {
    return timed(&SequenceTimings::waited_s, work);
  }

 private:
  template <class Work>
  auto timed(double SequenceTimings::*total, const Work& work) const {
    struct Clock {
      SequenceTimings* timings;
      double SequenceTimings::*total;
      std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
      ~Clock() {
        if (timings != nullptr)
          timings->*total += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      }
    };
    const Clock clock{options.timings.get(), total};
    return work();
  }
};

/// What a method's forward pass gives: `kept` is for its own backward pass.
struct Attended {
  at::Tensor out;  ///< [batch, C, heads, head_dim]
  std::vector<at::Tensor> kept;
};

Attended attend_by_ring(const SequenceCall& call, const at::Tensor& q, const at::Tensor& k,
                        const at::Tensor& v);
ops::BlockGradients ring_gradients(const SequenceCall& call, const std::vector<at::Tensor>& kept,
                                   const at::Tensor& grad_out);

Attended attend_by_rsa(const SequenceCall& call, const at::Tensor& q, const at::Tensor& k,
                       const at::Tensor& v);
ops::BlockGradients rsa_gradients(const SequenceCall& call, const std::vector<at::Tensor>& kept,
                                  const at::Tensor& grad_out);

/// kUlysses and kHybrid.
Attended attend_by_heads(const SequenceCall& call, const at::Tensor& q, const at::Tensor& k,
                         const at::Tensor& v);
ops::BlockGradients head_gradients(const SequenceCall& call, const std::vector<at::Tensor>& kept,
                                   const at::Tensor& grad_out);
/// Throws ConfigError where heads or ranks cannot be split so.
void check_heads(const SequenceCall& call);

Attended attend_by_gather(const SequenceCall& call, const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v);
ops::BlockGradients gather_gradients(const SequenceCall& call, const std::vector<at::Tensor>& kept,
                                     const at::Tensor& grad_out);

/// Where sums are made: double for double, else float.
at::ScalarType sum_type(const at::Tensor& x);
/// Zeros of that type to add gradients of x to, by `copies` and of x's shape: [copies..., *x].
at::Tensor zero_gradients(const at::Tensor& x, std::vector<std::int64_t> copies = {});

}  // namespace stoa::dist
