#include "stoa/ops/block_attention_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stoa/ops/block_attention_kernels.cpp"
#include "hwy/foreach_target.h"
#include "stoa/ops/dropout_inl.h"

HWY_BEFORE_NAMESPACE();
namespace stoa::ops {
namespace HWY_NAMESPACE {
namespace {

using Signed = hn::RebindToSigned<Tag<float>>;
using Unsigned = hn::RebindToUnsigned<Tag<float>>;

/// 2^x for x below 126, relative error 2e-7, 1 for 0; 0 below -125 and for -infinity. NaN stays NaN.
HWY_INLINE Floats power_of_two(Tag<float> d, Floats x) {
#if HWY_TARGET <= HWY_AVX3
  // two instructions of AVX-512 for five: what lies above the next lower integer, and a product with
  // 2^integer
  static constexpr float kTerms[] = {1.0F, 0.6931513F, 0.24016444F, 0.055799913F, 0.00901703F, 0.0018671302F};
  constexpr int kDown = 1;
  const Floats fraction{_mm512_maskz_reduce_ps(0xffff, x.raw, kDown)};
  const auto seen = _mm512_cmp_ps_mask(x.raw, _mm512_set1_ps(-125.0F), _CMP_NLT_UQ);
  return Floats{_mm512_maskz_scalef_ps(seen, polynomial(d, fraction, kTerms).raw, x.raw)};
#else
  // adding 1.5 * 2^23 rounds to an integer and leaves it in the lowest bits
  const auto shift = hn::Set(d, 12582912.0F);
  const auto shifted = hn::Add(x, shift);
  const auto r = hn::Sub(x, hn::Sub(shifted, shift));
  static constexpr float kTerms[] = {1.0F, 0.693147F, 0.24022242F, 0.055507336F, 0.009671513F, 0.0013264727F};
  const auto fraction = polynomial(d, r, kTerms);
  const Signed whole;
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(whole, shifted));
  const auto power = hn::BitCast(d, hn::Add(hn::BitCast(whole, fraction), exponent));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -125.0F)), power);
#endif
}

/// Calls work(lanes, column) for all whole vectors of a row: columns are a multiple of any vector's lanes.
template <class Work>
HWY_INLINE void each_vector(std::int64_t columns, const Work& work) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(Tag<float>()));
  for (std::int64_t c = 0; c < columns; c += lanes) work(c);
}

void hide_impl(float* scores, std::int64_t rows, std::int64_t columns, const TileNumbers& n) {
  const Tag<float> d;
  const Signed whole;
  const auto nothing = hn::Set(d, -HUGE_VALF);
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto limit = hn::Set(whole, n.key_limits[r]);
    const auto document = hn::Set(whole, n.key_documents == nullptr ? 0 : n.key_documents[r]);
    float* const row = scores + r * columns;
    each_vector(columns, [&](std::int64_t c) STOA_STEP {
      auto hidden = hn::Gt(limit, hn::LoadU(whole, n.query_limits + c));
      if (n.key_documents != nullptr)
        hidden = hn::Or(hidden, hn::Ne(document, hn::LoadU(whole, n.query_documents + c)));
      hn::StoreU(hn::IfThenElse(hn::RebindMask(d, hidden), nothing, hn::LoadU(d, row + c)), d, row + c);
    });
  }
}

/// exponentiate_columns() for kVectors neighbouring vectors of columns.
template <int kVectors>
HWY_INLINE void exponentiate_vectors(float* scores, std::int64_t rows, std::int64_t columns,
                                     const Floats (&top)[kVectors], Floats (&sums)[kVectors]) {
  const Tag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t r = 0; r < rows; ++r)
    for (int v = 0; v < kVectors; ++v) {
      float* const at = scores + r * columns + v * lanes;
      const auto p = power_of_two(d, hn::Sub(hn::LoadU(d, at), top[v]));
      hn::StoreU(p, d, at);
      sums[v] = hn::Add(sums[v], p);
    }
}

/// softmax_columns() for kVectors neighbouring vectors of columns.
template <int kVectors>
HWY_INLINE bool softmax_vectors(float* scores, std::int64_t rows, std::int64_t columns, float* top,
                                float* sum, float* factor) {
  const Tag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  // probabilities of up to 2^8 lose no digits, and tops that rarely move spare the sums' correction
  const auto slack = hn::Set(d, 8.0F);
  const auto none = hn::Set(d, -HUGE_VALF);
  Floats best[kVectors], sums[kVectors];
  for (int v = 0; v < kVectors; ++v) best[v] = none;
  for (std::int64_t r = 0; r < rows; ++r)
    for (int v = 0; v < kVectors; ++v)
      best[v] = hn::Max(best[v], hn::LoadU(d, scores + r * columns + v * lanes));
  bool moved = false;
  for (int v = 0; v < kVectors; ++v) {
    const auto before = hn::LoadU(d, top + v * lanes);
    const auto now = hn::IfThenElse(hn::Gt(best[v], hn::Add(before, slack)), best[v], before);
    hn::StoreU(now, d, top + v * lanes);
    best[v] = hn::IfThenZeroElse(hn::Eq(now, none), now);  // -infinity - -infinity would be NaN
    const auto change = power_of_two(d, hn::Sub(before, best[v]));
    const auto same = hn::Eq(before, now);
    moved = moved || !hn::AllTrue(d, same);
    const auto times = hn::IfThenElse(same, hn::Set(d, 1.0F), change);
    hn::StoreU(times, d, factor + v * lanes);
    sums[v] = hn::Mul(times, hn::LoadU(d, sum + v * lanes));
  }
  exponentiate_vectors<kVectors>(scores, rows, columns, best, sums);
  for (int v = 0; v < kVectors; ++v) hn::StoreU(sums[v], d, sum + v * lanes);
  return moved;
}

bool softmax_impl(float* scores, std::int64_t rows, std::int64_t columns, float* top, float* sum,
                  float* factor) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(Tag<float>()));
  bool moved = false;
  std::int64_t c = 0;
  for (; c + 4 * lanes <= columns; c += 4 * lanes)
    moved |= softmax_vectors<4>(scores + c, rows, columns, top + c, sum + c, factor + c);
  for (; c < columns; c += lanes)
    moved |= softmax_vectors<1>(scores + c, rows, columns, top + c, sum + c, factor + c);
  return moved;
}

template <int kVectors>
HWY_INLINE void exponentiate_some(float* scores, std::int64_t rows, std::int64_t columns, const float* top,
                                  float* sum) {
  const Tag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  Floats tops[kVectors], sums[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    tops[v] = hn::LoadU(d, top + v * lanes);
    sums[v] = hn::LoadU(d, sum + v * lanes);
  }
  exponentiate_vectors<kVectors>(scores, rows, columns, tops, sums);
  for (int v = 0; v < kVectors; ++v) hn::StoreU(sums[v], d, sum + v * lanes);
}

void exponentiate_impl(float* scores, std::int64_t rows, std::int64_t columns, const float* top, float* sum) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(Tag<float>()));
  std::int64_t c = 0;
  for (; c + 4 * lanes <= columns; c += 4 * lanes)
    exponentiate_some<4>(scores + c, rows, columns, top + c, sum + c);
  for (; c < columns; c += lanes) exponentiate_some<1>(scores + c, rows, columns, top + c, sum + c);
}

void drop_impl(float* probabilities, std::int64_t rows, std::int64_t columns, const TileNumbers& n,
               float keep) {
  const Tag<float> d;
  const Unsigned whole;
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto key = hn::Set(whole, static_cast<std::uint32_t>(n.key_positions[r]));
    float* const row = probabilities + r * columns;
    each_vector(columns, [&](std::int64_t c) STOA_STEP {
      const auto mask = kept(d, mixed_bits(whole, hn::LoadU(whole, n.query_seeds + c), key), keep);
      hn::StoreU(hn::Mul(hn::LoadU(d, row + c), mask), d, row + c);
    });
  }
}

void scale_impl(float* tile, std::int64_t rows, std::int64_t columns, const float* factor) {
  const Tag<float> d;
  each_vector(columns, [&](std::int64_t c) STOA_STEP {
    const auto times = hn::LoadU(d, factor + c);
    for (std::int64_t r = 0; r < rows; ++r) {
      float* const at = tile + r * columns + c;
      hn::StoreU(hn::Mul(hn::LoadU(d, at), times), d, at);
    }
  });
}

template <bool kDropped>
HWY_INLINE void backward(float* scores, float* g, std::int64_t rows, std::int64_t columns,
                         const float* log_sum, const float* delta, const TileNumbers& n, float keep) {
  const Tag<float> d;
  const Unsigned whole;
  for (std::int64_t r = 0; r < rows; ++r, scores += columns, g += columns)
    each_vector(columns, [&](std::int64_t c) STOA_STEP {
      const auto p = power_of_two(d, hn::Sub(hn::LoadU(d, scores + c), hn::LoadU(d, log_sum + c)));
      auto through = hn::LoadU(d, g + c);
      if constexpr (kDropped) {
        const auto key = hn::Set(whole, static_cast<std::uint32_t>(n.key_positions[r]));
        const auto mask = kept(d, mixed_bits(whole, hn::LoadU(whole, n.query_seeds + c), key), keep);
        through = hn::Mul(through, mask);
        hn::StoreU(hn::Mul(p, mask), d, scores + c);
      } else {
        hn::StoreU(p, d, scores + c);
      }
      hn::StoreU(hn::Mul(p, hn::Sub(through, hn::LoadU(d, delta + c))), d, g + c);
    });
}

void backward_impl(float* scores, float* g, std::int64_t rows, std::int64_t columns, const float* log_sum,
                   const float* delta) {
  backward<false>(scores, g, rows, columns, log_sum, delta, {}, 1);
}

void backward_dropped_impl(float* scores, float* g, std::int64_t rows, std::int64_t columns,
                           const float* log_sum, const float* delta, const TileNumbers& n, float keep) {
  backward<true>(scores, g, rows, columns, log_sum, delta, n, keep);
}

void add_rows_impl(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns,
                   float* to, std::int64_t to_stride) {
  const Tag<float> d;
  for (std::int64_t r = 0; r < rows; ++r, from += from_stride, to += to_stride)
    sweep(d, columns, [&](auto part, std::int64_t i) STOA_STEP {
      part.store(d, hn::Add(part.load(d, to + i), part.load(d, from + i)), to + i);
    });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace stoa::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace stoa::ops {

HWY_EXPORT(hide_impl);
HWY_EXPORT(softmax_impl);
HWY_EXPORT(exponentiate_impl);
HWY_EXPORT(drop_impl);
HWY_EXPORT(scale_impl);
HWY_EXPORT(backward_impl);
HWY_EXPORT(backward_dropped_impl);
HWY_EXPORT(add_rows_impl);

void hide_columns(float* scores, std::int64_t rows, std::int64_t columns, const TileNumbers& numbers) {
  STOA_SIMD_DISPATCH(hide_impl)(scores, rows, columns, numbers);
}

bool softmax_columns(float* scores, std::int64_t rows, std::int64_t columns, float* top, float* sum,
                     float* factor) {
  return STOA_SIMD_DISPATCH(softmax_impl)(scores, rows, columns, top, sum, factor);
}

void exponentiate_columns(float* scores, std::int64_t rows, std::int64_t columns, const float* top,
                          float* sum) {
  STOA_SIMD_DISPATCH(exponentiate_impl)(scores, rows, columns, top, sum);
}

void drop_columns(float* probabilities, std::int64_t rows, std::int64_t columns, const TileNumbers& numbers,
                  float keep) {
  STOA_SIMD_DISPATCH(drop_impl)(probabilities, rows, columns, numbers, keep);
}

void scale_columns(float* tile, std::int64_t rows, std::int64_t columns, const float* factor) {
  STOA_SIMD_DISPATCH(scale_impl)(tile, rows, columns, factor);
}

void backward_columns(float* scores, float* g, std::int64_t rows, std::int64_t columns, const float* log_sum,
                      const float* delta) {
  STOA_SIMD_DISPATCH(backward_impl)(scores, g, rows, columns, log_sum, delta);
}

void backward_dropped_columns(float* scores, float* g, std::int64_t rows, std::int64_t columns,
                              const float* log_sum, const float* delta, const TileNumbers& numbers,
                              float keep) {
  STOA_SIMD_DISPATCH(backward_dropped_impl)(scores, g, rows, columns, log_sum, delta, numbers, keep);
}

void add_rows(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns, float* to,
              std::int64_t to_stride) {
  STOA_SIMD_DISPATCH(add_rows_impl)(from, from_stride, rows, columns, to, to_stride);
}

}  // namespace stoa::ops
#endif
