#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace stoa {

namespace hashing {

// Odd constants with about as many ones as zeros.
inline constexpr std::uint64_t kFirst = 0x9e3779b97f4a7c15u, kSecond = 0xd6e8feb86659fd93u,
                               kThird = 0xa5cb9243f2c1d36bu;

/// High and low half of the 128-bit product, folded: every bit of the result depends on every bit of both.
inline std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

inline std::uint64_t finish(std::uint64_t state, std::uint64_t length) {
  return fold(fold(state ^ kSecond, length ^ kThird) ^ kFirst, state ^ kThird);
}

}  // namespace hashing

/// A seeded 64-bit hash of bytes, equal on every machine. Fast and well mixed, not cryptographic.
std::uint64_t hash64(std::string_view bytes, std::uint64_t seed);

/// The same for one 64-bit number; here, as every value of a data set passes it several times.
inline std::uint64_t hash64(std::uint64_t value, std::uint64_t seed) {
  return hashing::finish(
      hashing::fold(value ^ hashing::kFirst ^ seed, hashing::kSecond) + (value ^ hashing::kThird), 8);
}

/// A hash of 128 bits over pieces added one after the other, as 32 hexadecimal digits: names an encoding.
class Fingerprint {
 public:
  void add(std::string_view piece);
  std::string text() const;

 private:
  std::uint64_t high_ = 1, low_ = 2;
};

}  // namespace stoa
