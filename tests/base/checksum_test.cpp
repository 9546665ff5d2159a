#include "stoa/base/checksum.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string_view>
#include <vector>

namespace stoa {
namespace {

std::vector<std::uint8_t> bytes_of(std::string_view text) {
  return {text.begin(), text.end()};
}

TEST(Checksum, Crc32GivesThePublishedCheckValue) {
  EXPECT_EQ(crc32(bytes_of("123456789")), 0xcbf43926u);
}

TEST(Checksum, Crc32ContinuesFromAnEarlierPart) {
  EXPECT_EQ(crc32(bytes_of("6789"), crc32(bytes_of("12345"))), 0xcbf43926u);
  EXPECT_EQ(crc32({}, 0xcbf43926u), 0xcbf43926u);
}

TEST(Checksum, Crc32cGivesThePublishedCheckValue) {
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xe3069283u);
}

TEST(Checksum, Crc32cOfNothingIsZero) {
  EXPECT_EQ(crc32c({}), 0u);
}

// RFC 3720, appendix B.4
TEST(Checksum, Crc32cGivesTheValuesOfTheIscsiStandard) {
  EXPECT_EQ(crc32c(std::vector<std::uint8_t>(32, 0x00)), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::vector<std::uint8_t>(32, 0xff)), 0x62a8ab43u);
  std::vector<std::uint8_t> ascending(32);
  std::iota(ascending.begin(), ascending.end(), std::uint8_t{0});
  EXPECT_EQ(crc32c(ascending), 0x46dd794eu);
}

TEST(Checksum, MaskedCrc32cRotatesAndAdds) {
  EXPECT_EQ(masked_crc32c(bytes_of("123456789")), 0xc78ab0e5u);
}

}  // namespace
}  // namespace stoa
