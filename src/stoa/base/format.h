#pragma once

// The one way to format text. Header-only mode, because LibTorch ships an fmt of its own that shadows the
// system's.
#ifndef FMT_HEADER_ONLY
#define FMT_HEADER_ONLY
#endif
#include <fmt/format.h>

namespace stoa {
using fmt::format;
}  // namespace stoa
