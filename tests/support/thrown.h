#pragma once

#include <gtest/gtest.h>

#include <exception>
#include <string>

namespace stoa::test {

/// The message of the `Expected` error that `work` throws; a test failure and "" where it throws none or
/// another.
template <class Expected, class Work>
std::string thrown(const Work& work) {
  try {
    work();
  } catch (const Expected& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another kind of error: " << error.what();
    return "";
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

}  // namespace stoa::test

/// Fails unless TEXT contains PART, and shows both.
#define STOA_EXPECT_CONTAINS(text, part) EXPECT_NE(std::string(text).find(part), std::string::npos) << (text)
