#pragma once

#include <cstdint>

namespace stoa::ops {

/// Zero in the unsigned bytes that rows are rounded to.
constexpr std::int32_t kByteZero = 128;

/// A row of `columns` numbers as bytes round(x / scale) + kByteZero with scale = max |x| / 127, padded with
/// zeros up to `padded`; returns the scale. A row of zeros has scale 0; one with a NaN or an infinity has a
/// NaN for its scale.
float row_to_bytes(const float* row, std::int64_t columns, std::int64_t padded, std::uint8_t* bytes);

/// out[c] = row_scale * scale[c] * (product[c] - kByteZero * sum[c]): a row of int32 products of bytes back
/// in numbers.
void bytes_to_row(const std::int32_t* product, const std::int32_t* sum, const float* scale, float row_scale,
                  std::int64_t columns, float* out);

}  // namespace stoa::ops
