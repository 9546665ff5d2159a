#include "stoa/data/tabular/hash.h"

#include <bit>
#include <cstring>

#include "stoa/base/format.h"

static_assert(std::endian::native == std::endian::little, "files and hashes are read as little-endian words");

namespace stoa {
using hashing::finish, hashing::fold, hashing::kFirst, hashing::kSecond, hashing::kThird;

std::uint64_t hash64(std::string_view bytes, std::uint64_t seed) {
  std::uint64_t state = seed ^ kFirst;
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    state = fold(state ^ word, kSecond) + (word ^ kThird);
  }
  std::uint64_t word = 0;
  if (i < bytes.size()) std::memcpy(&word, bytes.data() + i, bytes.size() - i);
  state = fold(state ^ word, kSecond) + (word ^ kThird);
  return finish(state, bytes.size());
}

void Fingerprint::add(std::string_view piece) {
  high_ = hash64(hash64(piece, high_), kFirst);
  low_ = hash64(hash64(piece, low_), kSecond);
}

std::string Fingerprint::text() const {
  return format("{:016x}{:016x}", high_, low_);
}

}  // namespace stoa
