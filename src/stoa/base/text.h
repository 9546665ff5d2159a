#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stoa {

/// Number of single-character insertions, deletions, substitutions and swaps of neighbours that turn `a` into
/// `b`.
int edit_distance(std::string_view a, std::string_view b);

/// The candidate nearest to `word`, or an empty string where none is near enough to be a likely misspelling.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

/// "; did you mean `x`?" for the nearest candidate, otherwise "; known: a, b, c" (all candidates).
std::string suggestion(std::string_view word, const std::vector<std::string>& candidates);

/// The items with `separator` between them.
std::string join(const std::vector<std::string>& items, std::string_view separator);

/// 29691369 -> "29,691,369".
std::string thousands(int64_t value);

/// Seconds as "45 s", "3:07" (minutes) or "2:03:07" (hours).
std::string duration(double seconds);

/// Bytes as "512 B", "3.4 KiB", "12.0 MiB", "1.5 GiB".
std::string bytes(double count);

}  // namespace stoa
