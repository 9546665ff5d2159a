#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "stoa/ops/block_attention_forms.h"
#include "stoa/ops/block_attention_kernels.h"
#include "stoa/ops/block_sight.h"
#include "stoa/ops/gemm.h"

// What both passes of block_attention.h share in fp32 on the CPU. Scores are made a column a query: sums over
// keys are then sums of vectors, and what the next product needs is their tile as it lies, on its right with
// values turned, or on its left. Queries, which are turned for that, take the scale and log2(e) with them, so
// that 2^x does for e^x. Internal to ops/.
namespace stoa::ops {

constexpr std::int64_t kSide = kSightSide;              ///< queries of a tile
constexpr std::int64_t kTileKeys = kSpanSides * kSide;  ///< and at most so many keys

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

/// How many keys of `numbers` floats each, a multiple of kTileKeys, most of the level 2 cache holds.
std::int64_t keys_in_cache(std::int64_t numbers);

/// Memory at addresses of whole cache lines, which is kept for the next time.
template <class T>
class Scratch {
 public:
  T* sized(std::int64_t numbers) {
    if (numbers > size_) {
      constexpr std::int64_t kLine = 64;
      const auto bytes = divide_up(numbers * static_cast<std::int64_t>(sizeof(T)), kLine) * kLine;
      data_.reset(static_cast<T*>(std::aligned_alloc(kLine, static_cast<std::size_t>(bytes))));
      size_ = data_ ? numbers : 0;
      if (!data_) throw std::bad_alloc();
    }
    return data_.get();
  }
  T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* data) const { std::free(data); }
  };
  std::unique_ptr<T, Free> data_;
  std::int64_t size_ = 0;
};

/// The rows of one head of one sample.
template <class T>
struct HeadRows {
  T* data;
  std::int64_t stride;

  T* at(std::int64_t row) const { return data + row * stride; }
};

HeadRows<const float> rows_of(const at::Tensor& x, std::int64_t sample, std::int64_t head);
HeadRows<float> changed_rows_of(const at::Tensor& x, std::int64_t sample, std::int64_t head);

/// Copies `count` rows of `dim` numbers, and zeros up to `padded` rows.
void copy_rows(const HeadRows<const float>& from, std::int64_t first, std::int64_t count, std::int64_t padded,
               std::int64_t dim, float* to);

/// Copies rows of keys turned, kTileKeys at a time: [tiles, dim, kTileKeys], with zeros up to whole sides.
void turn_keys(const HeadRows<const float>& from, std::int64_t first, std::int64_t count, std::int64_t dim,
               float* to);

/// Copies `count` rows of queries turned: [dim, columns] times `factor`, columns behind them 0.
void turn_queries(const HeadRows<const float>& from, std::int64_t first, std::int64_t count,
                  std::int64_t columns, std::int64_t dim, float factor, float* to);

/// c = a b or c += a b for a [rows, k] with this stride, and b [k, n] and c [rows, n] with rows one behind
/// the other: gemm_rows() that does not cut rows, of which few different numbers come.
void multiply(const float* a, std::int64_t a_stride, std::int64_t rows, const float* b, std::int64_t k,
              std::int64_t n, float* c, bool add);

/// Up to 64 queries of one head. There are columns for a few more, up to whole vectors.
struct QueryTile {
  std::int64_t sample, head, side, first, count, columns;
};

QueryTile tile_at(const BlockCall& call, std::int64_t sample, std::int64_t head, std::int64_t side);

/// The seeds of their dropout, if there is any.
void fill_seeds(const BlockCall& call, const QueryTile& tile, std::uint32_t* seeds);

TileNumbers numbers_at(const BlockCall& call, const QueryTile& tile, std::int64_t key_side,
                       const std::uint32_t* seeds);

/// Hides what the queries do not see of `sides` sides of keys.
void hide_unseen(const BlockCall& call, const QueryTile& tile, std::int64_t key_side, std::int64_t sides,
                 float* scores);

}  // namespace stoa::ops
