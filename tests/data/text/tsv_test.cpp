#include "stoa/data/text/tsv.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using Fields = std::vector<std::string_view>;

std::vector<Fields> all(std::string_view text) {
  TsvReader reader(text, "table.tsv");
  std::vector<Fields> lines;
  for (Fields fields; reader.fields(fields);) lines.push_back(fields);
  return lines;
}

TEST(Tsv, QuotationMarksAreText) {
  EXPECT_EQ(all("a \"b\tc\n\"\td\"\n"), (std::vector<Fields>{{"a \"b", "c"}, {"\"", "d\""}}));
}

TEST(Tsv, LinesEndWithLfOrCrLfOrTheText) {
  EXPECT_EQ(all("a\tb\r\nc\rd\t\n\ne"), (std::vector<Fields>{{"a", "b"}, {"c\rd", ""}, {""}, {"e"}}));
  EXPECT_TRUE(all("").empty());
}

TEST(Tsv, OtherLineSeparatorsOfUnicodeAreText) {
  EXPECT_EQ(all("a\u2028b\u0085c\x0b\x1c"
                "d\n")
                .size(),
            1u);
}

TEST(Tsv, AByteOrderMarkInFrontIsPassedOver) {
  EXPECT_EQ(all("\xef\xbb\xbfQuality\tx"), (std::vector<Fields>{{"Quality", "x"}}));
}

TEST(Tsv, TextThatIsNotUtf8IsRefusedWithItsLine) {
  EXPECT_EQ(test::thrown<DataError>([] { all("a\nb\xe9z\n"); }),
            "table.tsv, line 2: byte 2 is not UTF-8; save the file as UTF-8");
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([] { all("\xed\xa0\x80\n"); }), "byte 1 is not UTF-8");
}

}  // namespace
}  // namespace stoa
