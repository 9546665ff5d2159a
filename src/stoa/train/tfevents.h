#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace stoa {

/// TensorBoard's file format: TFRecord frames (length, its masked CRC-32C, payload, its masked CRC-32C;
/// little-endian) that hold protocol-buffer messages `Event`. Only what scalars need of it.

/// The frame every events file starts with: an event that names the version of the format.
std::string tfevents_header(double wall_time);

/// One frame with scalars of one step. `wall_time` is in seconds since 1970.
std::string tfevents_scalars(double wall_time, std::int64_t step,
                             const std::vector<std::pair<std::string, float>>& scalars);

/// How many bytes of `content` are whole, undamaged frames of steps up to `last_step`, counted from the
/// front.
std::size_t tfevents_up_to(std::string_view content, std::int64_t last_step);

}  // namespace stoa
