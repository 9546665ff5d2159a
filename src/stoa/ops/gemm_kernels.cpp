#include "stoa/ops/gemm_kernels.h"

#include <hwy/cache_control.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stoa/ops/gemm_kernels.cpp"
#include "hwy/foreach_target.h"
#include "stoa/ops/simd_inl.h"

HWY_BEFORE_NAMESPACE();
namespace stoa::ops {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_SCALAR

constexpr std::int64_t kSide = 1;

void transpose_side(const float* from, std::int64_t, float* to, std::int64_t) {
  *to = *from;
}

#else

constexpr std::int64_t kSide = 4;
using Four = hn::FixedTag<float, 4>;

void transpose_side(const float* from, std::int64_t from_stride, float* to, std::int64_t to_stride) {
  const Four d;
  const hn::RepartitionToWide<Four> pairs;
  const auto a = hn::LoadU(d, from), b = hn::LoadU(d, from + from_stride);
  const auto c = hn::LoadU(d, from + 2 * from_stride), e = hn::LoadU(d, from + 3 * from_stride);
  const auto ab_low = hn::BitCast(pairs, hn::InterleaveLower(d, a, b));
  const auto ab_high = hn::BitCast(pairs, hn::InterleaveUpper(d, a, b));
  const auto ce_low = hn::BitCast(pairs, hn::InterleaveLower(d, c, e));
  const auto ce_high = hn::BitCast(pairs, hn::InterleaveUpper(d, c, e));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, ab_low, ce_low)), d, to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, ab_low, ce_low)), d, to + to_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, ab_high, ce_high)), d, to + 2 * to_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, ab_high, ce_high)), d, to + 3 * to_stride);
}

#endif

void transpose_impl(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns,
                    float* to, std::int64_t to_stride) {
  const std::int64_t whole_rows = rows / kSide * kSide, whole_columns = columns / kSide * kSide;
  for (std::int64_t c = 0; c < whole_columns; c += kSide)
    for (std::int64_t r = 0; r < whole_rows; r += kSide)
      transpose_side(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
  const auto singly = [&](std::int64_t r_begin, std::int64_t c_begin, std::int64_t c_end) {
    for (std::int64_t c = c_begin; c < c_end; ++c)
      for (std::int64_t r = r_begin; r < rows; ++r) to[c * to_stride + r] = from[r * from_stride + c];
  };
  singly(whole_rows, 0, whole_columns);
  singly(0, whole_columns, columns);
}

void add_columns_impl(const float* from, float* sums, std::int64_t rows, std::int64_t columns) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t c = 0;
  for (; c + lanes <= columns; c += lanes) {
    auto sum = hn::LoadU(d, sums + c);
    for (std::int64_t r = 0; r < rows; ++r) sum = hn::Add(sum, hn::LoadU(d, from + r * columns + c));
    hn::StoreU(sum, d, sums + c);
  }
  for (; c < columns; ++c)
    for (std::int64_t r = 0; r < rows; ++r) sums[c] += from[r * columns + c];
}

/// dot_products() for kRows rows and kColumns columns. What comes after those of b is fetched meanwhile: the
/// CPU by itself does not look beyond a page.
template <int kRows, int kColumns>
void dot_block(const float* a, const float* b, std::int64_t size, float* products, std::int64_t stride) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto ahead = static_cast<std::uintptr_t>(kColumns * size) * sizeof(float);
  hn::Vec<decltype(d)> sums[kRows][kColumns];
  for (auto& row : sums)
    for (auto& sum : row) sum = hn::Zero(d);
  std::int64_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    hn::Vec<decltype(d)> row[kRows];
    for (int r = 0; r < kRows; ++r) row[r] = hn::LoadU(d, a + r * size + i);
    for (int c = 0; c < kColumns; ++c) {
      const float* const from = b + c * size + i;
      hwy::Prefetch(reinterpret_cast<const float*>(reinterpret_cast<std::uintptr_t>(from) + ahead));
      const auto weight = hn::LoadU(d, from);
      for (int r = 0; r < kRows; ++r) sums[r][c] = hn::MulAdd(weight, row[r], sums[r][c]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kColumns; ++c) {
      float product = hn::GetLane(hn::SumOfLanes(d, sums[r][c]));
      for (std::int64_t rest = i; rest < size; ++rest) product += a[r * size + rest] * b[c * size + rest];
      products[r * stride + c] = product;
    }
}

template <int kRows>
void dot_some_rows(const float* a, const float* b, std::int64_t columns, std::int64_t size, float* products,
                   std::int64_t stride) {
  constexpr int kColumns = kRows > 2 ? 2 : 4;
  std::int64_t c = 0;
  for (; c + kColumns <= columns; c += kColumns)
    dot_block<kRows, kColumns>(a, b + c * size, size, products + c, stride);
  for (; c < columns; ++c) dot_block<kRows, 1>(a, b + c * size, size, products + c, stride);
}

void dot_products_impl(const float* a, std::int64_t rows, const float* b, std::int64_t columns,
                       std::int64_t size, float* products, std::int64_t stride) {
  for (; rows >= 4; rows -= 4, a += 4 * size, products += 4 * stride)
    dot_some_rows<4>(a, b, columns, size, products, stride);
  if (rows == 3) dot_some_rows<3>(a, b, columns, size, products, stride);
  if (rows == 2) dot_some_rows<2>(a, b, columns, size, products, stride);
  if (rows == 1) dot_some_rows<1>(a, b, columns, size, products, stride);
}

/// The products of kWide vectors of columns, for panel_products().
template <int kWide>
void panel_block(const std::uint32_t* row, std::int64_t pairs, const std::uint32_t* panel, std::int64_t width,
                 float* products) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> whole;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  constexpr std::uintptr_t kAhead = 4096;  // bytes: the CPU by itself does not look beyond a page
  const auto high_half = hn::Set(whole, 0xffff0000);
  hn::Vec<decltype(d)> sums[kWide];
  for (auto& sum : sums) sum = hn::Zero(d);
  for (std::int64_t i = 0; i < pairs; ++i) {
    const auto words = hn::Set(whole, row[i]);
    const auto first = hn::BitCast(d, hn::ShiftLeft<16>(words)),
               second = hn::BitCast(d, hn::And(words, high_half));
    for (int c = 0; c < kWide; ++c) {
      const std::uint32_t* const from = panel + i * width + c * lanes;
      hwy::Prefetch(reinterpret_cast<const std::uint32_t*>(reinterpret_cast<std::uintptr_t>(from) + kAhead));
      const auto weights = hn::LoadU(whole, from);
      sums[c] = hn::MulAdd(hn::BitCast(d, hn::ShiftLeft<16>(weights)), first, sums[c]);
      sums[c] = hn::MulAdd(hn::BitCast(d, hn::And(weights, high_half)), second, sums[c]);
    }
  }
  for (int c = 0; c < kWide; ++c) hn::StoreU(sums[c], d, products + c * lanes);
}

void panel_products_impl(const Bfloat16* row, std::int64_t pairs, const Bfloat16* panel, std::int64_t width,
                         std::int64_t columns, float* products, bool add) {
  constexpr int kWide = 4;
  const auto step = kWide * static_cast<std::int64_t>(hn::Lanes(hn::ScalableTag<float>()));
  const auto* const words = reinterpret_cast<const std::uint32_t*>(row);
  const auto* const from = reinterpret_cast<const std::uint32_t*>(panel);
  float sums[kWide * HWY_MAX_BYTES / sizeof(float)];
  for (std::int64_t c = 0; c < columns; c += step) {
    panel_block<kWide>(words, pairs, from + c, width, sums);
    for (std::int64_t i = 0; i < step && c + i < columns; ++i)
      products[c + i] = add ? products[c + i] + sums[i] : sums[i];
  }
}

void round_row_impl(const float* from, std::int64_t columns, Bfloat16* to) {
  const hn::ScalableTag<float> d;
  sweep(d, columns,
        [&](auto part, std::int64_t c) STOA_STEP { part.store(d, part.load(d, from + c), to + c); });
}

void pair_rows_impl(const float* first, const float* second, std::int64_t columns, Bfloat16* to) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> whole;
  auto* const words = reinterpret_cast<std::uint32_t*>(to);
  sweep(d, columns, [&](auto part, std::int64_t c) STOA_STEP {
    const auto low = hn::ShiftRight<16>(round_to_bfloat16(d, part.load(d, first + c)));
    auto word = low;
    if (second != nullptr) {
      const auto high = round_to_bfloat16(d, part.load(d, second + c));
      word = hn::Or(low, hn::And(high, hn::Set(whole, 0xffff0000)));
    }
    part.store(whole, word, words + c);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace stoa::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace stoa::ops {

HWY_EXPORT(transpose_impl);

void transpose_block(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns,
                     float* to, std::int64_t to_stride) {
  STOA_SIMD_DISPATCH(transpose_impl)(from, from_stride, rows, columns, to, to_stride);
}

HWY_EXPORT(add_columns_impl);

void add_columns(const float* from, float* sums, std::int64_t rows, std::int64_t columns) {
  STOA_SIMD_DISPATCH(add_columns_impl)(from, sums, rows, columns);
}

HWY_EXPORT(dot_products_impl);

void dot_products(const float* a, std::int64_t rows, const float* b, std::int64_t columns, std::int64_t size,
                  float* products, std::int64_t stride) {
  STOA_SIMD_DISPATCH(dot_products_impl)(a, rows, b, columns, size, products, stride);
}

HWY_EXPORT(panel_products_impl);

void panel_products(const Bfloat16* row, std::int64_t pairs, const Bfloat16* panel, std::int64_t width,
                    std::int64_t columns, float* products, bool add) {
  STOA_SIMD_DISPATCH(panel_products_impl)(row, pairs, panel, width, columns, products, add);
}

HWY_EXPORT(round_row_impl);

void round_row(const float* from, std::int64_t columns, Bfloat16* to) {
  STOA_SIMD_DISPATCH(round_row_impl)(from, columns, to);
}

HWY_EXPORT(pair_rows_impl);

void pair_rows(const float* first, const float* second, std::int64_t columns, Bfloat16* to) {
  STOA_SIMD_DISPATCH(pair_rows_impl)(first, second, columns, to);
}

}  // namespace stoa::ops
#endif
