#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <numbers>
#include <vector>

#include "stoa/ops/block_attention_forms.h"
#include "stoa/ops/block_attention_rows.h"
#include "stoa/ops/gemm_kernels.h"

namespace stoa::ops {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Into how large blocks queries and keys are cut.
struct Cut {
  std::int64_t key_sides, query_sides;
};

/// From the problem and the CPU alone, so that sums do not depend on the number of threads.
Cut cut_of(const BlockCall& call) {
  constexpr std::int64_t kManyHeads = 8;  // enough work at once without more blocks
  return {keys_in_cache(5 * call.head_dim()) / kSide,
          (call.batch() * call.kv_heads() < kManyHeads ? 1024 : 2048) / kSide};
}

struct BackwardScratch {
  Scratch<float> keys, turned_keys, values, grad_keys, grad_values;  // of a block of keys
  Scratch<float> queries, turned_queries, grads, turned_grads;       // of a tile of queries
  Scratch<float> log_sum, delta, turned_grad_queries, grad_queries;
  Scratch<std::uint32_t> seeds;
  Scratch<float> scores, gradients;

  void make(std::int64_t keys_numbers, std::int64_t dim) {
    const std::int64_t turned = divide_up(keys_numbers, dim * kTileKeys) * dim * kTileKeys;
    for (auto* x : {&keys, &values, &grad_keys, &grad_values}) x->sized(keys_numbers);
    turned_keys.sized(turned);
    for (auto* x : {&queries, &turned_queries, &grads, &turned_grads, &turned_grad_queries, &grad_queries})
      x->sized(kSide * dim);
    for (auto* x : {&log_sum, &delta}) x->sized(kSide);
    seeds.sized(kSide);
    for (auto* x : {&scores, &gradients}) x->sized(kTileKeys * kSide);
  }
};

/// Gradients that a block of queries and a block of keys of one key head give one another.
class PairWork {
 public:
  PairWork(const BlockCall& call, const BlockRows& rows, const BlockGradients& into, std::int64_t sample,
           std::int64_t kv_head, std::int64_t key_side, std::int64_t query_side)
      : call_(call),
        rows_(rows),
        into_(into),
        sample_(sample),
        kv_head_(kv_head),
        key_side_(key_side),
        key_end_(std::min(key_side + cut_of(call).key_sides, call.sight->key_sides())),
        query_side_(query_side),
        query_end_(std::min(query_side + cut_of(call).query_sides, call.sight->query_sides())),
        dim_(call.head_dim()) {}

  void run() {
    auto& s = scratch();
    const std::int64_t first = key_side_ * kSide, padded = (key_end_ - key_side_) * kSide,
                       count = std::min(padded, call_.keys() - first);
    s.make(padded * dim_, dim_);
    const auto k = rows_of(call_.k, sample_, kv_head_), v = rows_of(call_.v, sample_, kv_head_);
    copy_rows(k, first, count, padded, dim_, s.keys.get());
    copy_rows(v, first, count, padded, dim_, s.values.get());
    turn_keys({s.keys.get(), dim_}, 0, count, dim_, s.turned_keys.get());
    std::fill_n(s.grad_keys.get(), padded * dim_, 0.0F);
    std::fill_n(s.grad_values.get(), padded * dim_, 0.0F);
    for (std::int64_t head = kv_head_ * call_.group(); head < (kv_head_ + 1) * call_.group(); ++head)
      for (std::int64_t side = query_side_; side < query_end_; ++side)
        if (call_.sight->seen(sample_, side, side + 1, key_side_, key_end_) > 0)
          run_tile(tile_at(call_, sample_, head, side));
    const auto to_k = changed_rows_of(into_.k, sample_, kv_head_);
    const auto to_v = changed_rows_of(into_.v, sample_, kv_head_);
    add_rows(s.grad_keys.get(), dim_, count, dim_, to_k.at(first), to_k.stride);
    add_rows(s.grad_values.get(), dim_, count, dim_, to_v.at(first), to_v.stride);
  }

 private:
  static BackwardScratch& scratch() {
    thread_local BackwardScratch scratch;
    return scratch;
  }

  /// What all keys of the block need of the queries. The scale goes with their gradients, too.
  void prepare(const QueryTile& t) {
    auto& s = scratch();
    const auto q = rows_of(call_.q, sample_, t.head), grad = rows_of(rows_.grad_out, sample_, t.head);
    const auto scale = static_cast<float>(call_.scale);
    copy_rows(q, t.first, t.count, t.columns, dim_, s.queries.get());
    copy_rows(grad, t.first, t.count, t.columns, dim_, s.grads.get());
    turn_queries({s.queries.get(), dim_}, 0, t.count, t.columns, dim_,
                 static_cast<float>(call_.scale * std::numbers::log2e), s.turned_queries.get());
    turn_queries({s.grads.get(), dim_}, 0, t.count, t.columns, dim_, scale, s.turned_grads.get());
    const std::int64_t place = (sample_ * call_.heads() + t.head) * call_.queries() + t.first;
    const float* const log_sums = rows_.log_sum.const_data_ptr<float>() + place;
    const float* const deltas = rows_.delta.const_data_ptr<float>() + place;
    for (std::int64_t c = 0; c < t.columns; ++c) {
      // what has seen nothing, or is no query, has infinity, which makes probabilities of 0
      const bool real = c < t.count && log_sums[c] != -kInfinity;
      s.log_sum.get()[c] = real ? static_cast<float>(log_sums[c] * std::numbers::log2e) : kInfinity;
      s.delta.get()[c] = real ? deltas[c] * scale : 0.0F;
    }
    fill_seeds(call_, t, s.seeds.get());
  }

  void run_tile(const QueryTile& t) {
    prepare(t);
    auto& s = scratch();
    bool begun = false;
    call_.sight->for_each_span(sample_, t.side, key_side_, key_end_,
                               [&](std::int64_t key_side, std::int64_t sides) {
                                 run_span(t, key_side, sides, begun);
                                 begun = true;
                               });
    transpose_block(s.turned_grad_queries.get(), t.columns, dim_, t.count, s.grad_queries.get(), dim_);
    const auto to = changed_rows_of(into_.q, sample_, t.head);
    add_rows(s.grad_queries.get(), dim_, t.count, dim_, to.at(t.first), to.stride);
  }

  /// `begun`: the queries' gradients hold something.
  void run_span(const QueryTile& t, std::int64_t key_side, std::int64_t sides, bool begun) {
    auto& s = scratch();
    const std::int64_t rows = sides * kSide, columns = t.columns, place = key_side - key_side_,
                       in_tile = place % kSpanSides, at = place * kSide * dim_;
    float* const scores = s.scores.get();
    float* const g = s.gradients.get();
    multiply(s.keys.get() + at, dim_, rows, s.turned_queries.get(), dim_, columns, scores, false);
    multiply(s.values.get() + at, dim_, rows, s.turned_grads.get(), dim_, columns, g, false);
    hide_unseen(call_, t, key_side, sides, scores);
    if (call_.dropout.rate > 0)
      backward_dropped_columns(scores, g, rows, columns, s.log_sum.get(), s.delta.get(),
                               numbers_at(call_, t, key_side, s.seeds.get()),
                               static_cast<float>(1 - call_.dropout.rate));
    else
      backward_columns(scores, g, rows, columns, s.log_sum.get(), s.delta.get());
    multiply(scores, columns, rows, s.grads.get(), columns, dim_, s.grad_values.get() + at, true);
    multiply(g, columns, rows, s.queries.get(), columns, dim_, s.grad_keys.get() + at, true);
    multiply(s.turned_keys.get() + (place - in_tile) * kSide * dim_ + in_tile * kSide, kTileKeys, dim_, g,
             rows, columns, s.turned_grad_queries.get(), begun);
  }

  const BlockCall& call_;
  const BlockRows& rows_;
  const BlockGradients& into_;
  std::int64_t sample_, kv_head_, key_side_, key_end_, query_side_, query_end_, dim_;
};

}  // namespace

// Each key block meets the query blocks in turn, beginning with another one than its neighbours: in no turn
// do two of them write to the same place, and what is added to it comes in the same order on any number of
// threads.
void backward_in_blocks(const BlockCall& call, const BlockRows& rows, const BlockGradients& into) {
  struct Pair {
    std::int64_t head, key_side, query_side;
  };
  const auto& sight = *call.sight;
  const auto cut = cut_of(call);
  const std::int64_t key_blocks = divide_up(sight.key_sides(), cut.key_sides),
                     query_blocks = divide_up(sight.query_sides(), cut.query_sides);
  const std::int64_t turns = std::max(key_blocks, query_blocks), heads = call.batch() * call.kv_heads();
  for (std::int64_t turn = 0; turn < turns; ++turn) {
    std::vector<Pair> pairs;
    std::vector<std::int64_t> costs;
    for (std::int64_t head = 0; head < heads; ++head)
      for (std::int64_t block = 0; block < key_blocks; ++block) {
        const std::int64_t query_side = (block + turn) % turns * cut.query_sides,
                           key_side = block * cut.key_sides;
        const std::int64_t cost = sight.seen(head / call.kv_heads(), query_side, query_side + cut.query_sides,
                                             key_side, key_side + cut.key_sides);
        if (cost == 0) continue;
        pairs.push_back({head, key_side, query_side});
        costs.push_back(cost);
      }
    share_out(costs, [&](std::int64_t i) {
      const auto& [head, key_side, query_side] = pairs[static_cast<std::size_t>(i)];
      PairWork(call, rows, into, head / call.kv_heads(), head % call.kv_heads(), key_side, query_side).run();
    });
  }
}

}  // namespace stoa::ops
