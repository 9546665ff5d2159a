#include "stoa/ops/resample_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stoa/ops/resample_kernels.cpp"
#include "hwy/foreach_target.h"
#include "stoa/ops/simd_inl.h"

HWY_BEFORE_NAMESPACE();
namespace stoa::ops {
namespace HWY_NAMESPACE {
namespace {

std::uint8_t rounded(float value) {
  return static_cast<std::uint8_t>(value + 0.5F < 255.0F ? value + 0.5F : 255.0F);
}

void blend_rows_impl(const std::uint8_t* rows, std::int64_t stride, const float* weights, std::int64_t taps,
                     std::int64_t size, float* out) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> words;
  const hn::Rebind<std::uint8_t, decltype(d)> bytes;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    auto sum = hn::Zero(d);
    for (std::int64_t t = 0; t < taps; ++t)
      sum = hn::MulAdd(hn::ConvertTo(d, hn::PromoteTo(words, hn::LoadU(bytes, rows + t * stride + i))),
                       hn::Set(d, weights[t]), sum);
    hn::StoreU(sum, d, out + i);
  }
  for (; i < size; ++i) {
    float sum = 0;
    for (std::int64_t t = 0; t < taps; ++t) sum += weights[t] * static_cast<float>(rows[t * stride + i]);
    out[i] = sum;
  }
}

void blend_any(const float* line, const std::int64_t* first, const float* weights, std::int64_t taps,
               std::int64_t begin, std::int64_t end, std::int64_t channels, std::uint8_t* out) {
  for (std::int64_t x = begin; x < end; ++x)
    for (std::int64_t c = 0; c < channels; ++c) {
      float sum = 0;
      for (std::int64_t t = 0; t < taps; ++t)
        sum += weights[x * taps + t] * line[(first[x] + t) * channels + c];
      out[x * channels + c] = rounded(sum);
    }
}

void blend_columns_impl(const float* line, const std::int64_t* first, const float* weights, std::int64_t taps,
                        std::int64_t outputs, std::int64_t channels, std::uint8_t* out) {
  std::int64_t x = 0;
#if HWY_TARGET != HWY_SCALAR
  if (channels ==
      3) {  // a pixel is three of four lanes; what the fourth writes is overwritten by the next pixel
    const hn::FixedTag<float, 4> d;
    const hn::FixedTag<std::int32_t, 4> words;
    const hn::FixedTag<std::uint8_t, 4> bytes;
    for (; x + 1 < outputs; ++x) {
      auto sum = hn::Set(d, 0.5F);
      for (std::int64_t t = 0; t < taps; ++t)
        sum = hn::MulAdd(hn::LoadU(d, line + (first[x] + t) * 3), hn::Set(d, weights[x * taps + t]), sum);
      hn::StoreU(hn::DemoteTo(bytes, hn::ConvertTo(words, sum)), bytes, out + x * 3);
    }
  }
#endif
  blend_any(line, first, weights, taps, x, outputs, channels, out);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace stoa::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace stoa::ops {

HWY_EXPORT(blend_rows_impl);
HWY_EXPORT(blend_columns_impl);

void blend_rows(const std::uint8_t* rows, std::int64_t stride, const float* weights, std::int64_t taps,
                std::int64_t size, float* out) {
  STOA_SIMD_DISPATCH(blend_rows_impl)(rows, stride, weights, taps, size, out);
}

void blend_columns(const float* line, const std::int64_t* first, const float* weights, std::int64_t taps,
                   std::int64_t outputs, std::int64_t channels, std::uint8_t* out) {
  STOA_SIMD_DISPATCH(blend_columns_impl)(line, first, weights, taps, outputs, channels, out);
}

}  // namespace stoa::ops
#endif
