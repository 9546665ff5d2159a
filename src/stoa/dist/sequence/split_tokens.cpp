#include "stoa/dist/sequence/split_tokens.h"

#include <ATen/ATen.h>

#include <utility>

#include "stoa/dist/sequence/linformer.h"
#include "stoa/ops/dropout.h"
#include "stoa/tensor/shape.h"

namespace stoa::dist {
namespace {

class ChunkExchange final : public nn::TokenExchange, public SplitSequences {
 public:
  /// `valid` [sequences, length] says which tokens of the whole are no padding; undefined: all.
  ChunkExchange(SequenceSplit split, std::int64_t sequences, at::Tensor valid)
      : split_(std::move(split)), sequences_(sequences), valid_(std::move(valid)) {}

  at::Tensor attend(const at::Tensor& qkv, const ops::PackedAttentionOptions& options) const override {
    const std::int64_t dim = qkv.size(1) / 3;
    const auto parts = qkv.view({sequences_, -1, 3, options.heads, dim / options.heads}).unbind(2);
    SequenceAttentionOptions attention;
    attention.method = split_.method;
    attention.order = split_.order;
    attention.ulysses = split_.ulysses;
    attention.causal = options.causal;
    attention.valid = valid_;
    attention.dropout = {options.dropout, ops::dropout_seed(options.dropout), ops::batch_part().first_sample,
                         options.first_head};
    return sequence_attention(parts[0], parts[1], parts[2], *split_.group, attention).reshape({-1, dim});
  }

  bool has_first() const override { return split_.group->rank() == 0; }  // in every order

  at::Tensor sum(const at::Tensor& values) const override {
    auto shared = values.detach().contiguous().clone();
    split_.group->all_reduce(shared);
    return shared;
  }

  const SequenceSplit& split() const override { return split_; }
  const at::Tensor& valid() const override { return valid_; }

 private:
  SequenceSplit split_;
  std::int64_t sequences_;
  at::Tensor valid_;
};

}  // namespace

at::Tensor split_values(const at::Tensor& values, double fill, const SequenceSplit& split) {
  check_shape(values, {-1, -1}, "split_values: values");
  const int ranks = split.group->size();
  const std::int64_t more = padded_length(values.size(1), split.order, ranks) - values.size(1);
  return chunk_of(at::constant_pad_nd(values, {0, more}, fill), 1, split.order, ranks, split.group->rank())
      .reshape({-1});
}

nn::PackedTokens split_tokens(const at::Tensor& ids, const at::Tensor& lengths, const at::Tensor& segments,
                              const SequenceSplit& split) {
  check_shape(ids, {-1, -1}, "split_tokens: ids");
  const std::int64_t sequences = ids.size(0), padded = ids.size(1);
  const int ranks = split.group->size();
  const std::int64_t length = padded_length(padded, split.order, ranks), chunk = length / ranks;
  nn::PackedTokens tokens;
  tokens.padded = tokens.longest = chunk;
  tokens.offsets = at::arange(sequences + 1, at::kLong) * chunk;
  tokens.ids = split_values(ids, 0, split);
  if (segments.defined()) tokens.segments = split_values(segments, 0, split);
  // padding has no position of its own beyond those of the batch
  tokens.positions = token_positions(split.order, length, ranks, split.group->rank())
                         .clamp_max(padded - 1)
                         .repeat({sequences})
                         .to(ids.device());
  at::Tensor valid;
  if (lengths.defined() || length > padded) {
    const auto counts =
        lengths.defined() ? lengths.to(at::kCPU, at::kLong) : at::full({sequences}, padded, at::kLong);
    valid = at::arange(length, at::kLong).lt(counts.unsqueeze(1)).to(ids.device());
  }
  tokens.exchange = std::make_shared<ChunkExchange>(split, sequences, valid);
  return tokens;
}

}  // namespace stoa::dist
