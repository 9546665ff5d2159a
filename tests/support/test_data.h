#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace stoa::test {

/// A file or folder of the test data: below $STOA_TEST_DATA, or ../shared/data beside the source tree; where
/// it is not there, below .deps/data, in which scripts/demo.sh keeps Fashion-MNIST.
inline std::filesystem::path test_data(const std::string& name) {
  const std::filesystem::path source = STOA_SOURCE_DIR;
  const char* root = std::getenv("STOA_TEST_DATA");
  const auto place =
      (root != nullptr ? std::filesystem::path(root) : source / ".." / "shared" / "data") / name;
  const auto fetched = source / ".deps" / "data" / name;
  return !std::filesystem::exists(place) && std::filesystem::exists(fetched) ? fetched : place;
}

}  // namespace stoa::test

/// Skips the test, with the reason, where the test data has no NAME: STOA_NEEDS_TEST_DATA("fashion_mnist").
#define STOA_NEEDS_TEST_DATA(name)                              \
  if (!std::filesystem::exists(stoa::test::test_data(name)))    \
  GTEST_SKIP() << "no " << stoa::test::test_data(name).string() \
               << "; set STOA_TEST_DATA to the folder of the test data"
