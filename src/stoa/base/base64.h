#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace stoa {

/// Bytes as base64 text (RFC 4648, padded, on one line): pictures inside JSON and HTML.
std::string to_base64(std::span<const std::uint8_t> bytes);

/// The bytes of padded base64 text. Throws DataError naming the position of what does not belong there.
std::vector<std::uint8_t> from_base64(std::string_view text);

}  // namespace stoa
