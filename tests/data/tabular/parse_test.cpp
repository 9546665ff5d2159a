#include "stoa/data/tabular/parse.h"

#include <gtest/gtest.h>

#include <cmath>

#include "stoa/base/errors.h"
#include "support/click_files.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

RawLayout table(std::vector<RawColumn> columns) {
  RawLayout layout{.source = "csv", .separator = ',', .quotes = true, .columns = std::move(columns)};
  return layout;
}

const RawLayout kMixed = table({{"y", CellType::kLabel},
                                {"t", CellType::kText},
                                {"h", CellType::kHex},
                                {"i", CellType::kInteger},
                                {"n", CellType::kNumber},
                                {"s", CellType::kSkip}});

ParsedRows parsed(const RawLayout& layout, const std::string& text, std::size_t capacity = 8) {
  ParsedRows rows(layout, capacity);
  RowParser(layout, "f").parse(text, 1, rows);
  return rows;
}

std::string refused(const std::string& text) {
  return thrown<DataError>([&] { parsed(kMixed, text); });
}

TEST(Parse, ReadsACellOfEveryType) {
  const std::string text = "1,ab,0fF,-7,2.5e1,x\r\n0,,,,,\n";
  const ParsedRows rows = parsed(kMixed, text);
  ASSERT_EQ(rows.rows, 2u);
  EXPECT_EQ(rows.labels[0], 1);
  EXPECT_EQ(rows.texts[1][0], "ab");
  EXPECT_EQ(text_of_key(CellType::kHex, rows.keys[2][0]), "0ff");
  EXPECT_EQ(text_of_key(CellType::kInteger, rows.keys[3][0]), "-7");
  EXPECT_EQ(rows.numbers[4][0], 25);
  EXPECT_EQ(rows.texts[1][1], "-1");
  EXPECT_EQ(text_of_key(CellType::kHex, rows.keys[2][1]), "-1");
  EXPECT_EQ(text_of_key(CellType::kInteger, rows.keys[3][1]), "-1");
  EXPECT_TRUE(std::isnan(rows.numbers[4][1]));
}

TEST(Parse, StopsWhereTheRowsAreFullAndGoesOnFromThere) {
  const RawLayout layout = table({{"y", CellType::kLabel}, {"i", CellType::kInteger}});
  const std::string text = "0,1\n1,2\n0,3";
  ParsedRows rows(layout, 2);
  const RowParser parser(layout, "f");
  EXPECT_EQ(parser.parse(text, 1, rows), 8u);
  EXPECT_EQ(rows.rows, 2u);
  EXPECT_EQ(parser.parse(std::string_view(text).substr(8), 3, rows), 3u);
  EXPECT_EQ(rows.rows, 1u);
  EXPECT_EQ(rows.keys[1][0], key_of_integer(3));
}

TEST(Parse, KeysOfDigitsSortAsTheirTextsDo) {
  const std::vector<std::string> sorted = {"",  "0",        "00", "00000001", "0a",
                                           "1", "10000000", "1f", "ffffffff"};
  std::uint64_t last = 0;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    std::uint64_t key = 0;
    ASSERT_TRUE(key_of_hex(sorted[i], key));
    EXPECT_TRUE(i == 0 || key > last) << sorted[i];
    last = key;
  }
}

TEST(Parse, KeysOfNumbersSortAsTheNumbersDo) {
  EXPECT_LT(key_of_integer(INT64_MIN), key_of_integer(-1));
  EXPECT_LT(key_of_integer(-1), key_of_integer(0));
  EXPECT_LT(key_of_integer(9), key_of_integer(10));
}

TEST(Parse, TakesQuotesOffAndHalvesDoubledOnes) {
  const std::string text = "1,\"a,b\",,,,\n0,\"say \"\"x\"\"\",,,,\n0,\"\",,,,\n";
  const ParsedRows rows = parsed(kMixed, text);
  EXPECT_EQ(rows.texts[1][0], "a,b");
  EXPECT_EQ(rows.texts[1][1], "say \"x\"");
  EXPECT_EQ(rows.texts[1][2], "-1");
}

TEST(Parse, ARatingIsALabelFromItsLeastValueOn) {
  RawLayout layout = table({{"y", CellType::kLabel}});
  layout.label_at_least = 4.0;
  const ParsedRows rows = parsed(layout, "4.0\n3.5\n5\n1\n");
  EXPECT_EQ(std::vector<int>(rows.labels.begin(), rows.labels.begin() + 4), (std::vector<int>{1, 0, 1, 0}));
}

TEST(Parse, NamesLineAndColumnOfAWrongColumnCount) {
  EXPECT_EQ(refused("1,a,0,1,1,x\n0,a,0,1\n"),
            "f:2, column 4: the line ends after 4 columns, 6 are needed; put the line right or remove it");
  STOA_EXPECT_CONTAINS(refused("1,a,0,1,1,x,y\n"), "f:1, column 6: the line has more than 6 columns");
  STOA_EXPECT_CONTAINS(refused("1,a,0,1,1,x\n\n"), "f:2, column 1");
}

TEST(Parse, RefusesIdsThatAreNotHexadecimalOrTooLong) {
  EXPECT_EQ(refused("1,a,0g,1,1,x\n"), "f:1, column 3 (h): `0g` is not a hexadecimal id of up to 8 digits");
  STOA_EXPECT_CONTAINS(refused("1,a,1234567g,1,1,x\n"), "column 3 (h): `1234567g`");
  STOA_EXPECT_CONTAINS(refused("1,a,123456789,1,1,x\n"), "column 3 (h): `123456789`");
}

TEST(Parse, RefusesLabelsThatAreNotZeroOrOne) {
  for (const char* label : {"2", "-1", "", "x", "nan", "0.5"})
    STOA_EXPECT_CONTAINS(refused(std::string(label) + ",a,0,1,1,x\n"), "f:1, column 1 (y): `");
}

TEST(Parse, RefusesNumbersThatAreNotFinite) {
  for (const char* number : {"nan", "inf", "-inf", "1e999", "1x", "0x10", " 1"})
    STOA_EXPECT_CONTAINS(refused("1,a,0,1," + std::string(number) + ",x\n"), "f:1, column 5 (n): `");
}

TEST(Parse, RefusesWholeNumbersBeyond64Bits) {
  STOA_EXPECT_CONTAINS(refused("1,a,0,9223372036854775808,1,x\n"), "f:1, column 4 (i): `");
  STOA_EXPECT_CONTAINS(refused("1,a,0,1.5,1,x\n"), "f:1, column 4 (i): `");
}

TEST(Parse, RefusesQuotesThatDoNotEnd) {
  STOA_EXPECT_CONTAINS(refused("1,\"a,0,1,1,x\n"),
                       "f:1, column 2 (t): `\"a,0,1,1,x` has a quote that does not end");
  STOA_EXPECT_CONTAINS(refused("1,\"a\"b,0,1,1,x\n"), "goes on behind its closing quote");
}

TEST(Parse, DaysOfSecondsAreRightOnBothSidesOf1970) {
  RawLayout layout = table({{"t", CellType::kInteger}});
  layout.fields = {{"day", 0, Derivation::kUnixWeekday, 0}, {"hour", 0, Derivation::kUnixHour, 0}};
  const ParsedRows rows =
      parsed(layout, "0\n-1\n-86400\n-86401\n-9223372036854775808\n9223372036854775807\n");
  std::vector<std::uint64_t> scratch;
  std::vector<std::string_view> texts;
  const auto values = [&](std::size_t field) {
    const std::uint64_t* keys = field_keys(layout, layout.fields[field], rows, {}, scratch, texts);
    std::vector<std::string> made;
    for (std::size_t i = 0; i < rows.rows; ++i) made.push_back(text_of_key(CellType::kInteger, keys[i]));
    return made;
  };
  EXPECT_EQ(values(0), (std::vector<std::string>{"4", "3", "3", "2", "0", "0"}));  // 4 is Thursday
  EXPECT_EQ(values(1), (std::vector<std::string>{"0", "23", "0", "23", "8", "15"}));
}

TEST(Parse, AnIdOfEightDigitsHasNoOtherCharacterAnywhere) {
  const RawLayout layout = table({{"h", CellType::kHex}, {"s", CellType::kSkip}});
  for (int byte = 1; byte < 256; ++byte) {
    if (byte == ',' || byte == '"' || byte == '\n' || byte == '\r') continue;
    for (std::size_t place = 0; place < 8; ++place) {
      std::string id = "0aF91b3C";
      id[place] = static_cast<char>(byte);
      std::uint64_t key = 0;
      if (key_of_hex(id, key))
        EXPECT_EQ(parsed(layout, id + ",\n").keys[0][0], key) << id;
      else
        EXPECT_THROW(parsed(layout, id + ",\n"), DataError) << byte << " at " << place;
    }
  }
}

TEST(Parse, WholeNumbersOfAnyLengthAreReadAlike) {
  const RawLayout layout =
      table({{"n", CellType::kNumber}, {"i", CellType::kInteger}, {"s", CellType::kSkip}});
  for (std::int64_t value = 0, next = 7; value < 4'000'000'000'000;
       value = next, next = next * 3 + value % 10) {
    for (const std::int64_t number : {value, -value}) {
      const std::string text = format("{},{},some more\n", number, number);
      const ParsedRows rows = parsed(layout, text);
      EXPECT_EQ(rows.numbers[0][0], static_cast<double>(number));
      EXPECT_EQ(rows.keys[1][0], key_of_integer(number));
    }
  }
  EXPECT_EQ(parsed(layout, "007,0000000,x and more\n").numbers[0][0], 7);
}

TEST(Parse, AWholeNumberHasNoOtherCharacterAnywhere) {
  const RawLayout layout = table({{"i", CellType::kInteger}, {"s", CellType::kSkip}});
  for (int byte = 1; byte < 256; ++byte) {
    if (byte == ',' || byte == '"' || byte == '\n' || (byte >= '0' && byte <= '9')) continue;
    for (std::size_t place = 0; place < 5; ++place) {
      std::string number = "12345";
      number[place] = static_cast<char>(byte);
      if (place == 0 && byte == '-') continue;
      EXPECT_THROW(parsed(layout, number + ",some more\n"), DataError) << byte << " at " << place;
    }
  }
}

TEST(Parse, EightEmptyCellsAreNotTakenForAnId) {
  EXPECT_EQ(parsed(criteo_layout(false), criteo_line("1", {}, {})).rows, 1u);
}

}  // namespace
}  // namespace stoa::test
