#pragma once

#include <string>

// Numbers with units as people type them on the command line. All throw ConfigError naming flag, value and
// the units known.
namespace stoa::cli {

/// "16GiB", "512 MB" (powers of 1000 without the i), "1e9B" -> bytes above 0.
double parse_bytes(const std::string& flag, const std::string& text);

/// "1.25GB/s", "10Gbit/s" -> bytes a second, above 0.
double parse_rate(const std::string& flag, const std::string& text);

/// "50us", "2ms", "0s" -> seconds, 0 or more.
double parse_seconds(const std::string& flag, const std::string& text);

}  // namespace stoa::cli
