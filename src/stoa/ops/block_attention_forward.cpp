#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "stoa/ops/attention_kernels.h"
#include "stoa/ops/block_attention_forms.h"
#include "stoa/ops/block_attention_rows.h"
#include "stoa/ops/gemm_kernels.h"

namespace stoa::ops {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Scores to base 2 no further from `top` than this are exponentiated as they are, without a look for the
// largest: sums stay within a float's range and lose no digits.
constexpr float kSteady = 60;

/// What is kept of a tile while blocks of keys go by.
struct TileSums {
  float *queries, *out;  // [dim, columns]
  float *top, *sum;      // [columns]
  std::uint32_t* seeds;  // [columns]
};

struct ForwardScratch {
  Scratch<float> queries, out, top, sum;  // of a stripe
  Scratch<std::uint32_t> seeds;
  Scratch<float> keys, values;  // of a block of keys
  Scratch<float> scores, factor, squares;
};

/// The largest length of some rows, but for NaN and, where there are limits, keys that no query sees.
float largest_length(const HeadRows<const float>& rows, std::int64_t first, std::int64_t count,
                     std::int64_t dim, const std::int32_t* limits, Scratch<float>& scratch) {
  float* const squares = scratch.sized(count);
  dot_rows(rows.at(first), rows.stride, rows.at(first), rows.stride, count, dim, squares);
  float largest = 0;
  for (std::int64_t i = 0; i < count; ++i)
    if (limits == nullptr || limits[i] != kNobody) largest = std::max(largest, squares[i]);
  return std::sqrt(largest);
}

/// Neighbouring tiles of one head, which share copies of the keys.
class StripeWork {
 public:
  StripeWork(const BlockCall& call, const AttentionBlock& state, std::int64_t sample, std::int64_t head,
             std::int64_t first_side, std::int64_t sides)
      : call_(call),
        sample_(sample),
        head_(head),
        first_side_(first_side),
        sides_(sides),
        dim_(call.head_dim()),
        factor_(static_cast<float>(call.scale * std::numbers::log2e)),
        rows_(changed_rows_of(state.out, sample, head)),
        log_sum_(state.log_sum.mutable_data_ptr<float>() + (sample * call.heads() + head) * call.queries()),
        tiles_(static_cast<std::size_t>(sides)) {
    auto& s = scratch();
    s.queries.sized(sides * kSide * dim_);
    s.out.sized(sides * kSide * dim_);
    s.top.sized(sides * kSide);
    s.sum.sized(sides * kSide);
    s.seeds.sized(sides * kSide);
    s.scores.sized(kTileKeys * kSide);
    s.factor.sized(kSide);
  }

  /// `fresh`: begins with nothing, whatever the state holds.
  void run(bool fresh) {
    for (std::int64_t i = 0; i < sides_; ++i) begin(i, fresh);
    const std::int64_t block = keys_in_cache(2 * dim_) / kSide, end = call_.sight->key_sides();
    for (std::int64_t side = 0; side < end; side += block) fold_block(side, std::min(side + block, end));
    for (std::int64_t i = 0; i < sides_; ++i) finish(i);
  }

 private:
  struct TileState {
    bool begun = false;  // `out` holds something
    float length = 0;    // the largest of its scaled queries
  };

  static ForwardScratch& scratch() {
    thread_local ForwardScratch scratch;
    return scratch;
  }

  QueryTile tile(std::int64_t i) const { return tile_at(call_, sample_, head_, first_side_ + i); }
  TileState& state(std::int64_t i) { return tiles_[static_cast<std::size_t>(i)]; }

  TileSums sums(std::int64_t i) const {
    const auto& s = scratch();
    const std::int64_t place = i * kSide;
    return {s.queries.get() + place * dim_, s.out.get() + place * dim_, s.top.get() + place,
            s.sum.get() + place, s.seeds.get() + place};
  }

  /// A finished block is a sum of 1 with its log_sum on top.
  void begin(std::int64_t i, bool fresh) {
    const auto t = tile(i);
    const auto own = sums(i);
    const auto q = rows_of(call_.q, sample_, head_);
    turn_queries(q, t.first, t.count, t.columns, dim_, factor_, own.queries);
    fill_seeds(call_, t, own.seeds);
    std::fill_n(own.top, t.columns, -kInfinity);
    std::fill_n(own.sum, t.columns, 0.0F);
    state(i) = {!fresh,
                std::abs(factor_) * largest_length(q, t.first, t.count, dim_, nullptr, scratch().squares)};
    if (fresh) return;
    turn_queries({rows_.data, rows_.stride}, t.first, t.count, t.columns, dim_, 1, own.out);
    for (std::int64_t c = 0; c < t.count; ++c) {
      const float log_sum = log_sum_[t.first + c];
      own.top[c] = static_cast<float>(log_sum * std::numbers::log2e);
      own.sum[c] = log_sum == -kInfinity ? 0.0F : 1.0F;
    }
  }

  void fold_block(std::int64_t side, std::int64_t end) {
    const auto& sight = *call_.sight;
    if (sight.seen(sample_, first_side_, first_side_ + sides_, side, end) == 0) return;
    const std::int64_t first = side * kSide, padded = (end - side) * kSide,
                       count = std::min(padded, call_.keys() - first), kv_head = head_ / call_.group();
    auto& s = scratch();
    float* const keys = s.keys.sized(padded * dim_);
    copy_rows(rows_of(call_.k, sample_, kv_head), first, count, padded, dim_, keys);
    turn_keys(rows_of(call_.v, sample_, kv_head), first, count, dim_,
              s.values.sized(divide_up(padded, kTileKeys) * kTileKeys * dim_));
    const float length =
        largest_length({keys, dim_}, 0, count, dim_, sight.key_limits(sample_, side), s.squares);
    for (std::int64_t i = 0; i < sides_; ++i) {
      const bool steady = steady_top(i, state(i).length * length);
      sight.for_each_span(sample_, first_side_ + i, side, end,
                          [&](std::int64_t key_side, std::int64_t sides) {
                            fold_span(i, key_side, sides, key_side - side, steady);
                          });
    }
  }

  /// Whether no score of at most `bound` is too far above `top`, which is set where it may be anything.
  bool steady_top(std::int64_t i, float bound) const {
    const auto own = sums(i);
    const std::int64_t columns = tile(i).columns;
    bool steady = bound <= kSteady;
    for (std::int64_t c = 0; c < columns; ++c)
      steady = steady && (own.top[c] == -kInfinity || bound - own.top[c] <= kSteady);
    for (std::int64_t c = 0; steady && c < columns; ++c)
      if (own.top[c] == -kInfinity) own.top[c] = 0;
    return steady;
  }

  /// Folds `sides` sides of keys, of the block's from `place` on, into a tile's sums.
  void fold_span(std::int64_t i, std::int64_t key_side, std::int64_t sides, std::int64_t place, bool steady) {
    auto& s = scratch();
    const auto t = tile(i);
    const auto own = sums(i);
    const std::int64_t rows = sides * kSide, in_tile = place % kSpanSides;
    const float* const keys = s.keys.get() + place * kSide * dim_;
    const float* const values = s.values.get() + (place - in_tile) * kSide * dim_ + in_tile * kSide;
    float* const scores = s.scores.get();
    float* const factor = s.factor.get();
    multiply(keys, dim_, rows, own.queries, dim_, t.columns, scores, false);
    hide_unseen(call_, t, key_side, sides, scores);
    if (steady)
      exponentiate_columns(scores, rows, t.columns, own.top, own.sum);
    else if (softmax_columns(scores, rows, t.columns, own.top, own.sum, factor) && state(i).begun)
      scale_columns(own.out, dim_, t.columns, factor);
    if (call_.dropout.rate > 0)
      drop_columns(scores, rows, t.columns, numbers_at(call_, t, key_side, own.seeds),
                   static_cast<float>(1 - call_.dropout.rate));
    multiply(values, kTileKeys, dim_, scores, rows, t.columns, own.out, state(i).begun);
    state(i).begun = true;
  }

  void finish(std::int64_t i) {
    const auto t = tile(i);
    const auto own = sums(i);
    if (!state(i).begun) std::fill_n(own.out, dim_ * t.columns, 0.0F);
    float* const factor = scratch().factor.get();
    for (std::int64_t c = 0; c < t.columns; ++c) factor[c] = own.sum[c] == 0 ? 0 : 1 / own.sum[c];
    scale_columns(own.out, dim_, t.columns, factor);
    transpose_block(own.out, t.columns, dim_, t.count, rows_.at(t.first), rows_.stride);
    for (std::int64_t c = 0; c < t.count; ++c) {
      const double log_sum = static_cast<double>(own.top[c]) + std::log2(static_cast<double>(own.sum[c]));
      log_sum_[t.first + c] = own.sum[c] == 0 ? -kInfinity : static_cast<float>(std::numbers::ln2 * log_sum);
    }
  }

  const BlockCall& call_;
  std::int64_t sample_, head_, first_side_, sides_, dim_;
  float factor_;
  HeadRows<float> rows_;
  float* log_sum_;
  std::vector<TileState> tiles_;
};

}  // namespace

void update_in_blocks(const BlockCall& call, const AttentionBlock& state, bool fresh) {
  const auto& sight = *call.sight;
  const std::int64_t heads = call.batch() * call.heads();
  // long stripes spare copies of keys, but there must be some for each thread
  const std::int64_t wanted = divide_up(4 * at::get_num_threads(), heads);
  const std::int64_t sides = std::clamp<std::int64_t>(sight.query_sides() / wanted, 4, 32);
  const std::int64_t stripes = divide_up(sight.query_sides(), sides);
  std::vector<std::int64_t> costs;
  for (std::int64_t i = 0; i < heads * stripes; ++i) {
    const std::int64_t first = i % stripes * sides;
    costs.push_back(1 + sight.seen(i / stripes / call.heads(), first, first + sides, 0, sight.key_sides()));
  }
  share_out(costs, [&](std::int64_t i) {
    const std::int64_t head = i / stripes, first = i % stripes * sides;
    StripeWork(call, state, head / call.heads(), head % call.heads(), first,
               std::min(sides, sight.query_sides() - first))
        .run(fresh);
  });
}

}  // namespace stoa::ops
