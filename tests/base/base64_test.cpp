#include "stoa/base/base64.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa {
namespace {

std::vector<std::uint8_t> bytes(const std::string& text) {
  return {text.begin(), text.end()};
}

TEST(Base64, EncodesTheExamplesOfTheStandard) {
  EXPECT_EQ(to_base64(bytes("")), "");
  EXPECT_EQ(to_base64(bytes("f")), "Zg==");
  EXPECT_EQ(to_base64(bytes("fo")), "Zm8=");
  EXPECT_EQ(to_base64(bytes("foo")), "Zm9v");
  EXPECT_EQ(to_base64(bytes("foobar")), "Zm9vYmFy");
}

TEST(Base64, GivesBackEveryByteAtEveryLength) {
  std::vector<std::uint8_t> all;
  for (int i = 0; i < 260; ++i) {
    EXPECT_EQ(from_base64(to_base64(all)), all);
    all.push_back(static_cast<std::uint8_t>(i * 7));
  }
}

TEST(Base64, RefusesWhatIsNotBase64) {
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([] { from_base64("Zm9"); }), "3 characters");
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([] { from_base64("Zm9v*m9v"); }), "position 4");
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([] { from_base64("Z===Zm9v"); }), "position 1");
}

}  // namespace
}  // namespace stoa
