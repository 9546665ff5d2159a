#include "stoa/ops/int8_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stoa/ops/int8_kernels.cpp"
#include "hwy/foreach_target.h"
#include "stoa/ops/simd_inl.h"

HWY_BEFORE_NAMESPACE();
namespace stoa::ops {
namespace HWY_NAMESPACE {
namespace {

using Floats = hn::ScalableTag<float>;
using Words = hn::RebindToSigned<Floats>;

float row_to_bytes_impl(const float* row, std::int64_t columns, std::int64_t padded, std::uint8_t* bytes) {
  const Floats d;
  const Words words;
  const hn::Rebind<std::uint8_t, Words> small;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t whole = columns / lanes * lanes;
  // the sum of x * 0 is NaN where any x is not finite
  auto largest = hn::Zero(d), nothing = hn::Zero(d);
  for (std::int64_t i = 0; i < whole; i += lanes) {
    const auto x = hn::LoadU(d, row + i);
    largest = hn::Max(largest, hn::Abs(x));
    nothing = hn::MulAdd(x, hn::Zero(d), nothing);
  }
  float top = hn::GetLane(hn::MaxOfLanes(d, largest)), zero = sum_lanes(d, nothing);
  for (std::int64_t i = whole; i < columns; ++i) {
    const float size = row[i] < 0 ? -row[i] : row[i];
    top = size > top ? size : top;
    zero += row[i] * 0;
  }
  const float factor = top > 0 && zero == 0 ? 127 / top : 0;
  for (std::int64_t i = 0; i < whole; i += lanes) {
    const auto q = hn::NearestInt(hn::Mul(hn::LoadU(d, row + i), hn::Set(d, factor)));
    hn::StoreU(hn::DemoteTo(small, hn::Add(q, hn::Set(words, kByteZero))), small, bytes + i);
  }
  for (std::int64_t i = whole; i < columns; ++i) {
    const float q = row[i] * factor;
    bytes[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(q < 0 ? q - 0.5F : q + 0.5F) + kByteZero);
  }
  for (std::int64_t i = columns; i < padded; ++i) bytes[i] = kByteZero;
  return top / 127 + zero;
}

void bytes_to_row_impl(const std::int32_t* product, const std::int32_t* sum, const float* scale,
                       float row_scale, std::int64_t columns, float* out) {
  const Floats d;
  const Words words;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= columns; i += lanes) {
    const auto shifted = hn::Sub(hn::LoadU(words, product + i), hn::ShiftLeft<7>(hn::LoadU(words, sum + i)));
    const auto factor = hn::Mul(hn::LoadU(d, scale + i), hn::Set(d, row_scale));
    hn::StoreU(hn::Mul(hn::ConvertTo(d, shifted), factor), d, out + i);
  }
  for (; i < columns; ++i)
    out[i] = static_cast<float>(product[i] - kByteZero * sum[i]) * (scale[i] * row_scale);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace stoa::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace stoa::ops {

HWY_EXPORT(row_to_bytes_impl);
HWY_EXPORT(bytes_to_row_impl);

float row_to_bytes(const float* row, std::int64_t columns, std::int64_t padded, std::uint8_t* bytes) {
  return STOA_SIMD_DISPATCH(row_to_bytes_impl)(row, columns, padded, bytes);
}

void bytes_to_row(const std::int32_t* product, const std::int32_t* sum, const float* scale, float row_scale,
                  std::int64_t columns, float* out) {
  STOA_SIMD_DISPATCH(bytes_to_row_impl)(product, sum, scale, row_scale, columns, out);
}

}  // namespace stoa::ops
#endif
