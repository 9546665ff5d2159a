#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace stoa::test {

/// A file or folder of the test data: below $STOA_TEST_DATA, or ../shared/data beside the source tree.
inline std::filesystem::path test_data(const std::string& name) {
  const char* root = std::getenv("STOA_TEST_DATA");
  return (root != nullptr ? std::filesystem::path(root)
                          : std::filesystem::path(STOA_SOURCE_DIR) / ".." / "shared" / "data") /
         name;
}

}  // namespace stoa::test

/// Skips the test, with the reason, where the test data has no NAME: STOA_NEEDS_TEST_DATA("fashion_mnist").
#define STOA_NEEDS_TEST_DATA(name)                              \
  if (!std::filesystem::exists(stoa::test::test_data(name)))    \
  GTEST_SKIP() << "no " << stoa::test::test_data(name).string() \
               << "; set STOA_TEST_DATA to the folder of the test data"
