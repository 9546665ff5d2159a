#include "stoa/ops/attention_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stoa/ops/attention_kernels.cpp"
#include "hwy/foreach_target.h"
#include "stoa/ops/activation_inl.h"
#include "stoa/ops/dropout_inl.h"
#include "stoa/ops/simd_inl.h"

HWY_BEFORE_NAMESPACE();
namespace stoa::ops {
namespace HWY_NAMESPACE {
namespace {

float largest(const float* row, std::int64_t columns) {
  const Tag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto best = hn::Set(d, row[0]);
  std::int64_t i = 0;
  for (; i + lanes <= columns; i += lanes) best = hn::Max(best, hn::LoadU(d, row + i));
  float result = hn::GetLane(hn::MaxOfLanes(d, best));
  for (; i < columns; ++i) result = row[i] > result ? row[i] : result;
  return result;
}

void softmax_rows_impl(float* scores, float scale, float* log_sum, std::int64_t rows, std::int64_t columns) {
  const Tag<float> d;
  for (std::int64_t r = 0; r < rows; ++r) {
    float* const row = scores + r * columns;
    const float shift = scale * largest(row, columns);
    auto sums = hn::Zero(d);
    sweep(d, columns, [&](auto part, std::int64_t i) HWY_ATTR {
      const auto e = exp_or_nan(d, hn::MulSub(part.load(d, row + i), hn::Set(d, scale), hn::Set(d, shift)));
      part.store(d, e, row + i);
      sums = hn::Add(sums, part.zero_outside(d, e));
    });
    const float sum = sum_lanes(d, sums);
    log_sum[r] = shift + std::log(sum);
    const auto factor = hn::Set(d, 1.0F / sum);
    sweep(d, columns, [&](auto part, std::int64_t i) HWY_ATTR {
      part.store(d, hn::Mul(part.load(d, row + i), factor), row + i);
    });
  }
}

void dot_rows_impl(const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride,
                   std::int64_t rows, std::int64_t columns, float* sums) {
  const Tag<float> d;
  for (std::int64_t r = 0; r < rows; ++r) {
    auto sum = hn::Zero(d);
    sweep(d, columns, [&](auto part, std::int64_t i) HWY_ATTR {
      sum = hn::MulAdd(part.load(d, a + r * a_stride + i), part.load(d, b + r * b_stride + i), sum);
    });
    sums[r] = sum_lanes(d, sum);
  }
}

void softmax_backward_impl(float* s, float* g, const float* log_sum, const float* dot, float scale,
                           std::int64_t rows, std::int64_t columns) {
  const Tag<float> d;
  const auto factor = hn::Set(d, scale);
  for (std::int64_t r = 0; r < rows; ++r, s += columns, g += columns)
    sweep(d, columns, [&](auto part, std::int64_t i) HWY_ATTR {
      const auto p = exp_or_nan(d, hn::MulSub(part.load(d, s + i), factor, part.load(d, log_sum + i)));
      part.store(d, p, s + i);
      part.store(d, hn::Mul(hn::Mul(p, factor), hn::Sub(part.load(d, g + i), part.load(d, dot + i))), g + i);
    });
}

void drop_rows_impl(float* probabilities, const std::uint32_t* query_seeds, float keep, std::int64_t rows,
                    std::int64_t columns) {
  const Tag<float> d;
  const hn::RebindToUnsigned<Tag<float>> whole;
  for (std::int64_t r = 0; r < rows; ++r) {
    float* const row = probabilities + r * columns;
    const auto seed = hn::Set(whole, query_seeds[r]);
    sweep(d, columns, [&](auto part, std::int64_t i) HWY_ATTR {
      const auto key = hn::Iota(whole, static_cast<std::uint32_t>(i));
      part.store(d, hn::Mul(part.load(d, row + i), kept(d, mixed_bits(whole, seed, key), keep)), row + i);
    });
  }
}

void softmax_dropout_backward_impl(float* s, float* g, const float* log_sum, const float* dot,
                                   const std::uint32_t* query_seeds, float keep, float scale,
                                   std::int64_t rows, std::int64_t columns) {
  const Tag<float> d;
  const hn::RebindToUnsigned<Tag<float>> whole;
  const auto factor = hn::Set(d, scale);
  for (std::int64_t r = 0; r < rows; ++r, s += columns, g += columns) {
    const auto key = hn::Set(whole, static_cast<std::uint32_t>(r));
    sweep(d, columns, [&](auto part, std::int64_t i) HWY_ATTR {
      const auto seeds = hn::BitCast(whole, part.load(d, reinterpret_cast<const float*>(query_seeds) + i));
      const auto mask = kept(d, mixed_bits(whole, seeds, key), keep);
      const auto p = exp_or_nan(d, hn::MulSub(part.load(d, s + i), factor, part.load(d, log_sum + i)));
      part.store(d, hn::Mul(p, mask), s + i);
      const auto through = hn::MulSub(part.load(d, g + i), mask, part.load(d, dot + i));
      part.store(d, hn::Mul(hn::Mul(p, factor), through), g + i);
    });
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace stoa::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace stoa::ops {

HWY_EXPORT(softmax_rows_impl);
HWY_EXPORT(dot_rows_impl);
HWY_EXPORT(softmax_backward_impl);
HWY_EXPORT(drop_rows_impl);
HWY_EXPORT(softmax_dropout_backward_impl);

void softmax_rows(float* scores, float scale, float* log_sum, std::int64_t rows, std::int64_t columns) {
  STOA_SIMD_DISPATCH(softmax_rows_impl)(scores, scale, log_sum, rows, columns);
}

void dot_rows(const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride, std::int64_t rows,
              std::int64_t columns, float* sums) {
  STOA_SIMD_DISPATCH(dot_rows_impl)(a, a_stride, b, b_stride, rows, columns, sums);
}

void softmax_backward_columns(float* s, float* g, const float* log_sum, const float* dot, float scale,
                              std::int64_t rows, std::int64_t columns) {
  STOA_SIMD_DISPATCH(softmax_backward_impl)(s, g, log_sum, dot, scale, rows, columns);
}

void drop_rows(float* probabilities, const std::uint32_t* query_seeds, float keep, std::int64_t rows,
               std::int64_t columns) {
  STOA_SIMD_DISPATCH(drop_rows_impl)(probabilities, query_seeds, keep, rows, columns);
}

void softmax_dropout_backward_columns(float* s, float* g, const float* log_sum, const float* dot,
                                      const std::uint32_t* query_seeds, float keep, float scale,
                                      std::int64_t rows, std::int64_t columns) {
  STOA_SIMD_DISPATCH(softmax_dropout_backward_impl)
  (s, g, log_sum, dot, query_seeds, keep, scale, rows, columns);
}

}  // namespace stoa::ops
#endif
