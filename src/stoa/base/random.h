#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

namespace stoa {

/// One 64-bit seed from several numbers (run seed, purpose, epoch, sample ...). Every random stream of Stoa
/// is named by such numbers alone, so that any point of a run can be reached again without saving generator
/// states.
std::uint64_t mix_seed(std::initializer_list<std::uint64_t> parts);

/// A small fast random stream (SplitMix64): the same seed gives the same numbers on every machine.
class RandomStream {
 public:
  explicit RandomStream(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits();                     ///< 64 random bits
  double uniform();                         ///< uniform in [0, 1)
  double uniform(double low, double high);  ///< uniform in [low, high)
  std::int64_t integer(std::int64_t low,
                       std::int64_t high);  ///< uniform in {low, ..., high - 1}, without modulo bias
  double normal();                          ///< standard normal (Box-Muller)
  double gamma(double shape);               ///< Gamma(shape, 1) (Marsaglia-Tsang), shape > 0
  double beta(double a, double b);          ///< Beta(a, b)

 private:
  std::uint64_t state_;
};

/// A random order of 0..size-1 (Fisher-Yates), fixed by the seed.
std::vector<std::int64_t> permutation(std::int64_t size, std::uint64_t seed);

}  // namespace stoa
