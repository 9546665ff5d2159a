#pragma once

#include <cstdint>

// The two passes of a separable resize of 8-bit images. Single-threaded.
namespace stoa::ops {

/// out[i] = the sum over t of weights[t] * rows[t * stride + i], for `size` samples of `taps` rows.
void blend_rows(const std::uint8_t* rows, std::int64_t stride, const float* weights, std::int64_t taps,
                std::int64_t size, float* out);

/// A row of `outputs` pixels of `channels` (1 or 3) samples: pixel x is the sum over t of weights[x * taps +
/// t] * the pixel first[x] + t of `line`, rounded and limited to 255. `line` has 4 readable numbers behind
/// its end.
void blend_columns(const float* line, const std::int64_t* first, const float* weights, std::int64_t taps,
                   std::int64_t outputs, std::int64_t channels, std::uint8_t* out);

}  // namespace stoa::ops
