#include "stoa/ops/linear_cross_entropy_kernels.h"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stoa/ops/linear_cross_entropy_kernels.cpp"
#include "hwy/foreach_target.h"
#include "stoa/ops/activation_inl.h"
#include "stoa/ops/simd_inl.h"

HWY_BEFORE_NAMESPACE();
namespace stoa::ops {
namespace HWY_NAMESPACE {
namespace {

void add_scores_impl(float* scores, const float* bias, const ScoreSums& sums, std::int64_t classes,
                     std::int64_t columns, std::int64_t stride) {
  const Tag<float> d;
  const auto none = hn::Set(d, -std::numeric_limits<float>::infinity());
  sweep(d, columns, [&](auto part, std::int64_t i) STOA_STEP {
    const auto before = part.load(d, sums.largest + i);
    auto largest = before, total = part.load(d, sums.total + i);
    for (std::int64_t c = 0; c < classes; ++c) {
      float* const place = scores + c * stride + i;
      auto score = part.load(d, place);
      if (bias != nullptr) {
        score = hn::Add(score, hn::Set(d, bias[c]));
        part.store(d, score, place);
      }
      largest = hn::Max(largest, score);
      total = hn::Add(total, score);
    }
    // classes may all have been ruled out so far
    const auto shift = hn::IfThenElse(hn::Eq(largest, none), hn::Zero(d), largest);
    auto sum = hn::Mul(part.load(d, sums.sum + i), exp(d, hn::Sub(before, shift)));
    for (std::int64_t c = 0; c < classes; ++c)
      sum = hn::Add(sum, exp_or_nan(d, hn::Sub(part.load(d, scores + c * stride + i), shift)));
    part.store(d, largest, sums.largest + i);
    part.store(d, sum, sums.sum + i);
    part.store(d, total, sums.total + i);
  });
}

void score_gradients_impl(float* scores, const float* log_sum, float even, float scale, float* class_sums,
                          std::int64_t classes, std::int64_t columns, std::int64_t stride) {
  const Tag<float> d;
  for (std::int64_t c = 0; c < classes; ++c, scores += stride) {
    auto sum = hn::Zero(d);
    sweep(d, columns, [&](auto part, std::int64_t i) STOA_STEP {
      const auto p = exp_or_nan(d, hn::Sub(part.load(d, scores + i), part.load(d, log_sum + i)));
      const auto gradient = hn::Mul(hn::Sub(p, hn::Set(d, even)), hn::Set(d, scale));
      part.store(d, gradient, scores + i);
      sum = hn::Add(sum, part.zero_outside(d, gradient));
    });
    std::fill(scores + columns, scores + stride, 0.0F);
    if (class_sums != nullptr) class_sums[c] += sum_lanes(d, sum);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace stoa::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace stoa::ops {

HWY_EXPORT(add_scores_impl);
HWY_EXPORT(score_gradients_impl);

void add_scores(float* scores, const float* bias, const ScoreSums& sums, std::int64_t classes,
                std::int64_t columns, std::int64_t stride) {
  STOA_SIMD_DISPATCH(add_scores_impl)(scores, bias, sums, classes, columns, stride);
}

void score_gradients(float* scores, const float* log_sum, float even, float scale, float* class_sums,
                     std::int64_t classes, std::int64_t columns, std::int64_t stride) {
  STOA_SIMD_DISPATCH(score_gradients_impl)
  (scores, log_sum, even, scale, class_sums, classes, columns, stride);
}

}  // namespace stoa::ops
#endif
