#include "stoa/ops/block_attention_rows.h"

#include <ATen/ATen.h>
#include <ATen/native/CPUBlas.h>
#include <unistd.h>

#include <algorithm>

#include "stoa/ops/gemm_kernels.h"

namespace stoa::ops {
namespace {

/// Turns rows far apart a few at a time, so that the cache, in which many such rows share their place, holds
/// them.
void turn(const HeadRows<const float>& from, std::int64_t first, std::int64_t count, std::int64_t dim,
          float* to, std::int64_t to_stride) {
  constexpr std::int64_t kFew = 16;
  for (std::int64_t r = 0; r < count; r += kFew)
    transpose_block(from.at(first + r), from.stride, std::min(kFew, count - r), dim, to + r, to_stride);
}

/// Columns from `count` on become 0.
void clear_columns(float* tile, std::int64_t rows, std::int64_t stride, std::int64_t count,
                   std::int64_t end) {
  for (std::int64_t r = 0; count < end && r < rows; ++r)
    std::fill(tile + r * stride + count, tile + r * stride + end, 0.0F);
}

}  // namespace

std::int64_t keys_in_cache(std::int64_t numbers) {
  static const std::int64_t bytes = [] {
    constexpr std::int64_t kUsual = 1024 * 1024;
    const std::int64_t found = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return found > 0 ? std::min(found, 2 * kUsual) : kUsual;
  }();
  const std::int64_t fit = bytes * 2 / 3 / (numbers * static_cast<std::int64_t>(sizeof(float)));
  return std::clamp<std::int64_t>(fit / kTileKeys * kTileKeys, kTileKeys, 1024);
}

HeadRows<const float> rows_of(const at::Tensor& x, std::int64_t sample, std::int64_t head) {
  return {x.const_data_ptr<float>() + sample * x.stride(0) + head * x.stride(2), x.stride(1)};
}

HeadRows<float> changed_rows_of(const at::Tensor& x, std::int64_t sample, std::int64_t head) {
  return {x.mutable_data_ptr<float>() + sample * x.stride(0) + head * x.stride(2), x.stride(1)};
}

void copy_rows(const HeadRows<const float>& from, std::int64_t first, std::int64_t count, std::int64_t padded,
               std::int64_t dim, float* to) {
  for (std::int64_t r = 0; r < count; ++r) std::copy_n(from.at(first + r), dim, to + r * dim);
  std::fill(to + count * dim, to + padded * dim, 0.0F);
}

void turn_keys(const HeadRows<const float>& from, std::int64_t first, std::int64_t count, std::int64_t dim,
               float* to) {
  for (std::int64_t r = 0; r < count; r += kTileKeys, to += dim * kTileKeys) {
    const std::int64_t rows = std::min(kTileKeys, count - r);
    turn(from, first + r, rows, dim, to, kTileKeys);
    clear_columns(to, dim, kTileKeys, rows, divide_up(rows, kSide) * kSide);
  }
}

void turn_queries(const HeadRows<const float>& from, std::int64_t first, std::int64_t count,
                  std::int64_t columns, std::int64_t dim, float factor, float* to) {
  turn(from, first, count, dim, to, columns);
  clear_columns(to, dim, columns, count, columns);
  if (factor == 1) return;
  float factors[kSide];
  std::fill_n(factors, kSide, factor);
  scale_columns(to, dim, columns, factors);
}

void multiply(const float* a, std::int64_t a_stride, std::int64_t rows, const float* b, std::int64_t k,
              std::int64_t n, float* c, bool add) {
#ifdef CPUBLAS_BRGEMM_F32F32F32
  for (std::int64_t column = 0; column < n; column += kPanel)
    at::native::cpublas::brgemm(rows, std::min(kPanel, n - column), k, a_stride, n, n, add, a, b + column,
                                c + column, /*is_vnni=*/false);
#else
  gemm_rows(a, a_stride, rows, RightHandSide::row_major(b, k, n), c, n, add);
#endif
}

QueryTile tile_at(const BlockCall& call, std::int64_t sample, std::int64_t head, std::int64_t side) {
  const std::int64_t first = side * kSide, count = std::min(kSide, call.queries() - first);
  return {sample, head, side, first, count, divide_up(count, kLaneColumns) * kLaneColumns};
}

void fill_seeds(const BlockCall& call, const QueryTile& tile, std::uint32_t* seeds) {
  if (call.dropout.rate == 0) return;
  const std::int32_t* const positions = call.sight->query_positions(tile.side);
  for (std::int64_t i = 0; i < tile.columns; ++i)
    seeds[i] = query_seed(call.dropout, tile.sample, tile.head, positions[i]);
}

TileNumbers numbers_at(const BlockCall& call, const QueryTile& tile, std::int64_t key_side,
                       const std::uint32_t* seeds) {
  const auto& sight = *call.sight;
  return {sight.query_limits(tile.side),
          sight.key_limits(tile.sample, key_side),
          sight.query_documents(tile.sample, tile.side),
          sight.key_documents(tile.sample, key_side),
          seeds,
          sight.key_positions(key_side)};
}

void hide_unseen(const BlockCall& call, const QueryTile& tile, std::int64_t key_side, std::int64_t sides,
                 float* scores) {
  for (std::int64_t i = 0; i < sides; ++i)
    if (call.sight->sight(tile.sample, tile.side, key_side + i) == BlockSight::Sight::kSome)
      hide_columns(scores + i * kSide * tile.columns, kSide, tile.columns,
                   numbers_at(call, tile, key_side + i, nullptr));
}

}  // namespace stoa::ops
