#pragma once

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>

namespace stoa::test {

/// A seed for what a test draws by chance, another one in each run of the tests: printed, so that a failure
/// can be repeated by STOA_TEST_SEED.
inline std::uint64_t drawn_seed() {
  const char* const given = std::getenv("STOA_TEST_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "STOA_TEST_SEED=" << seed << " repeats this" << std::endl;
  return seed;
}

}  // namespace stoa::test
