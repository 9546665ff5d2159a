#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "stoa/ops/attention_kernels.h"
#include "stoa/ops/block_attention_forms.h"

namespace stoa::ops {
namespace {

constexpr std::int64_t kQueryTile = 256, kKeyTile = 512;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

at::ScalarType sum_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor on_device(const std::int32_t* numbers, at::IntArrayRef shape, const at::Device& device) {
  return at::from_blob(const_cast<std::int32_t*>(numbers), shape, at::kInt).to(device, at::kInt, false, true);
}

/// A part of the rows [batch, rows, heads, head_dim] as [batch, kv_heads, heads / kv_heads * part, head_dim].
at::Tensor part_of(const at::Tensor& x, std::int64_t first, std::int64_t end, std::int64_t kv_heads) {
  const auto part = x.slice(1, first, end).to(sum_type(x)).transpose(1, 2);
  return part.reshape({x.size(0), kv_heads, -1, x.size(3)});
}

/// Its way back, [batch, part, heads, head_dim].
at::Tensor as_rows(const at::Tensor& part, std::int64_t heads) {
  return part.reshape({part.size(0), heads, -1, part.size(3)}).transpose(1, 2);
}

/// Calls of one of the two passes, with what of the mask the device needs.
class Tiles {
 public:
  explicit Tiles(const BlockCall& call) : call_(call) {
    const auto& sight = *call.sight;
    const auto device = call.q.device();
    const std::int64_t batch = call.batch(), queries = sight.query_sides() * kSightSide,
                       keys = sight.key_sides() * kSightSide;
    query_limits_ = on_device(sight.query_limits(0), {1, 1, queries, 1}, device);
    const std::int64_t limits = call.mask->key_valid.defined() ? batch : 1;
    key_limits_ = on_device(sight.key_limits(0, 0), {limits, 1, 1, keys}, device);
    if (call.mask->query_documents.defined()) {
      query_documents_ = on_device(sight.query_documents(0, 0), {batch, 1, queries, 1}, device);
      key_documents_ = on_device(sight.key_documents(0, 0), {batch, 1, 1, keys}, device);
    }
    if (call.dropout.rate > 0) {
      seeds_ = dropout_seeds(call);
      key_positions_ = on_device(sight.key_positions(0), {keys}, device).to(at::kLong);
    }
  }

  /// Calls work(first query, end) for each tile of queries.
  template <class Work>
  void for_each_query_tile(const Work& work) const {
    for (std::int64_t first = 0; first < call_.queries(); first += kQueryTile)
      work(first, std::min(first + kQueryTile, call_.queries()));
  }

  /// Calls work(first key, end) for each tile of keys of which these queries see something.
  template <class Work>
  void for_each_key_tile(std::int64_t query, std::int64_t query_end, const Work& work) const {
    for (std::int64_t first = 0; first < call_.keys(); first += kKeyTile) {
      const std::int64_t end = std::min(first + kKeyTile, call_.keys());
      if (any_pair(query, query_end, first, end,
                   [](auto sight) { return sight != BlockSight::Sight::kNone; }))
        work(first, end);
    }
  }

  /// Scores [batch, heads, queries, keys] of queries and keys as part_of() makes them; -infinity where
  /// hidden.
  at::Tensor scores(const at::Tensor& q, std::int64_t query, std::int64_t query_end, const at::Tensor& k,
                    std::int64_t key, std::int64_t key_end) const {
    const auto all = by_heads(q.matmul(k.transpose(2, 3)), query_end - query).mul_(call_.scale);
    if (!any_pair(query, query_end, key, key_end,
                  [](auto sight) { return sight != BlockSight::Sight::kAll; }))
      return all;
    auto hidden = key_limits_.slice(3, key, key_end).gt(query_limits_.slice(2, query, query_end));
    if (query_documents_.defined())
      hidden = hidden.logical_or(
          key_documents_.slice(3, key, key_end).ne(query_documents_.slice(2, query, query_end)));
    return all.masked_fill_(hidden, -kInfinity);
  }

  /// [batch, kv_heads, group * queries, keys] by heads.
  at::Tensor by_heads(const at::Tensor& grouped, std::int64_t queries) const {
    return grouped.view({call_.batch(), call_.heads(), queries, grouped.size(3)});
  }
  at::Tensor by_groups(const at::Tensor& of_heads) const {
    return of_heads.view({call_.batch(), call_.kv_heads(), -1, of_heads.size(3)});
  }

  /// What probabilities are multiplied by, undefined without dropout.
  at::Tensor factors(std::int64_t query, std::int64_t query_end, std::int64_t key,
                     std::int64_t key_end) const {
    if (!seeds_.defined()) return {};
    return dropout_factors(seeds_.slice(2, query, query_end), key_positions_.slice(0, key, key_end),
                           call_.dropout.rate, sum_type(call_.q));
  }

 private:
  /// Whether what any 64 queries see of any 64 keys of a tile is such.
  template <class Such>
  bool any_pair(std::int64_t query, std::int64_t query_end, std::int64_t key, std::int64_t key_end,
                const Such& such) const {
    for (std::int64_t sample = 0; sample < call_.batch(); ++sample)
      for (auto i = query / kSightSide; i * kSightSide < query_end; ++i)
        for (auto j = key / kSightSide; j * kSightSide < key_end; ++j)
          if (such(call_.sight->sight(sample, i, j))) return true;
    return false;
  }

  const BlockCall& call_;
  at::Tensor query_limits_, key_limits_, query_documents_, key_documents_, seeds_, key_positions_;
};

/// Infinities, which make NaN of differences, become `value`.
at::Tensor finite_or(const at::Tensor& x, double infinity, double value) {
  return x.masked_fill(x.eq(infinity), value);
}

}  // namespace

at::Tensor dropout_seeds(const BlockCall& call) {
  const auto seeds = at::empty({call.batch(), call.heads(), call.queries()}, at::kLong);
  auto* to = seeds.mutable_data_ptr<std::int64_t>();
  const auto* const positions = call.sight->query_positions(0);
  for (std::int64_t sample = 0; sample < call.batch(); ++sample)
    for (std::int64_t head = 0; head < call.heads(); ++head)
      for (std::int64_t i = 0; i < call.queries(); ++i)
        *to++ = query_seed(call.dropout, sample, head, positions[i]);
  return seeds.to(call.q.device());
}

// The arithmetic of mixed_bits() and kept() in dropout_inl.h, 32 bits in 64.
at::Tensor dropout_factors(const at::Tensor& seeds, const at::Tensor& key_positions, double rate,
                           at::ScalarType type) {
  constexpr std::int64_t kBits = 0xffffffff;
  const auto low = [](const at::Tensor& x) { return x.bitwise_and(kBits); };
  const auto folded = [](const at::Tensor& x, std::int64_t places) {
    return x.bitwise_xor(x.bitwise_right_shift(places));
  };
  auto x = low(seeds.unsqueeze(-1) + low(key_positions * std::int64_t{kColumnStep}));
  x = low(folded(x, 16) * std::int64_t{0x85ebca6b});
  x = low(folded(x, 13) * std::int64_t{0xc2b2ae35});
  x = folded(x, 16).bitwise_right_shift(8);
  const double bound = static_cast<float>(1 - rate) * 16777216.0F;
  return x.to(at::kDouble).lt(bound).to(type).div_(1 - rate);
}

void update_by_tiles(const BlockCall& call, const AttentionBlock& state) {
  const Tiles tiles(call);
  tiles.for_each_query_tile([&](std::int64_t query, std::int64_t query_end) {
    const auto q = part_of(call.q, query, query_end, call.kv_heads());
    const auto state_out = state.out.slice(1, query, query_end);
    const auto state_log_sum = state.log_sum.slice(2, query, query_end);
    // a finished block is a sum of 1 with its log_sum on top
    auto top = state_log_sum.unsqueeze(3).clone();
    auto sum = top.ne(-kInfinity).to(top.scalar_type());
    auto out = state_out.transpose(1, 2).clone();  // [batch, heads, queries, head_dim]
    tiles.for_each_key_tile(query, query_end, [&](std::int64_t key, std::int64_t key_end) {
      const auto k = part_of(call.k, key, key_end, call.kv_heads());
      const auto v = part_of(call.v, key, key_end, call.kv_heads());
      const auto scores = tiles.scores(q, query, query_end, k, key, key_end);
      const auto above = at::maximum(top, scores.amax(3, true));
      const auto level = finite_or(above, -kInfinity, 0);
      const auto factor = (top - level).exp_();
      const auto p = (scores - level).exp_();
      sum = sum * factor + p.sum(3, true);
      const auto factors = tiles.factors(query, query_end, key, key_end);
      const auto kept = tiles.by_groups(factors.defined() ? p * factors : p);
      out = out.mul_(factor).add_(tiles.by_heads(kept.matmul(v), query_end - query));
      top = above;
    });
    state_out.copy_(out.div_(finite_or(sum, 0, 1)).transpose(1, 2));
    state_log_sum.copy_((top + sum.log()).squeeze(3));
  });
}

void backward_by_tiles(const BlockCall& call, const BlockRows& rows, const BlockGradients& into) {
  const Tiles tiles(call);
  const auto type = sum_type(call.q);
  tiles.for_each_query_tile([&](std::int64_t query, std::int64_t query_end) {
    const auto q = part_of(call.q, query, query_end, call.kv_heads());
    const auto grad = part_of(rows.grad_out, query, query_end, call.kv_heads()).to(type);
    // rows that see nothing have no probabilities
    const auto log_sum =
        finite_or(rows.log_sum.slice(2, query, query_end).unsqueeze(3), -kInfinity, kInfinity);
    const auto delta = rows.delta.slice(2, query, query_end).unsqueeze(3);
    tiles.for_each_key_tile(query, query_end, [&](std::int64_t key, std::int64_t key_end) {
      const auto k = part_of(call.k, key, key_end, call.kv_heads());
      const auto v = part_of(call.v, key, key_end, call.kv_heads());
      const auto p = tiles.scores(q, query, query_end, k, key, key_end).sub_(log_sum).exp_();
      auto through = tiles.by_heads(grad.matmul(v.transpose(2, 3)), query_end - query);
      const auto factors = tiles.factors(query, query_end, key, key_end);
      if (factors.defined()) through.mul_(factors);
      const auto kept = tiles.by_groups(factors.defined() ? p * factors : p);
      const auto grad_scores = tiles.by_groups(through.sub_(delta).mul_(p).mul_(call.scale));
      into.v.slice(1, key, key_end).add_(as_rows(kept.transpose(2, 3).matmul(grad), call.kv_heads()));
      into.k.slice(1, key, key_end).add_(as_rows(grad_scores.transpose(2, 3).matmul(q), call.kv_heads()));
      into.q.slice(1, query, query_end).add_(as_rows(grad_scores.matmul(k), call.heads()));
    });
  });
}

}  // namespace stoa::ops
