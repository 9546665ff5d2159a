#include "stoa/tasks/click_rows.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "stoa/base/progress.h"
#include "support/click_files.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

class ClickRows : public ::testing::Test {
 protected:
  ClickRows() {
    set_verbosity(Verbosity::kQuiet);
    write_text(folder_ / "clicks.toml",
               "label = \"click\"\nseparator = \"\\t\"\ncategorical = [\"site\"]\ninteger = [\"hour\"]\n"
               "numeric = [\"price\"]\n");
    write_text(folder_ / "clicks.tsv",
               "site\tclick\thour\tprice\na\t1\t7\t10\nb\t0\t8\t20\na\t0\t7\t30\n\t0\t\t\n");
    PrepareOptions options = prepare_options("csv", {folder_ / "clicks.tsv"}, folder_ / "out");
    options.table_schema = folder_ / "clicks.toml";
    options.split = "1:0:0";
    prepare_tabular(options);
    encoder_ = std::make_unique<RowEncoder>(folder_ / "out");
  }
  std::vector<EncodedRow> parsed(const std::string& text) {
    return parse_rows(text, "rows", {3, 3}, 1, [&]() -> const RowEncoder& { return *encoder_; });
  }
  std::string refused(const std::string& text) {
    return thrown<DataError>([&] { parsed(text); });
  }
  using Ids = std::vector<std::int32_t>;

  TempDir folder_;
  std::unique_ptr<RowEncoder> encoder_;
};

TEST_F(ClickRows, LinesOfTheRawFormNeedNoHeaderAndNoLabel) {
  const auto rows = parsed("b\t0\t8\t30\r\na\t7\t15");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].ids, (Ids{2, 2}));
  EXPECT_EQ(rows[0].numerics, (std::vector<float>{1}));
  EXPECT_EQ(rows[1].ids, (Ids{1, 1}));
}

TEST_F(ClickRows, AHeaderMayNameColumnsInAnyOrderAndMore) {
  const auto rows = parsed("\xef\xbb\xbfprice\tuser\tsite\thour\n30\tx\tb\t8\n\n0\ty\ta\t7\n");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].ids, (Ids{2, 2}));
  EXPECT_EQ(rows[1].ids, (Ids{1, 1}));
  EXPECT_EQ(parsed("hour,price,site\n8,30,\"b\"\n")[0].ids, (Ids{2, 2}));
}

TEST_F(ClickRows, ALineOfTabsIsARowOfEmptyCells) {
  const auto rows = parsed("\t\t\na\t7\t15\n");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].ids, (Ids{0, 0}));
}

TEST_F(ClickRows, JsonLinesAreRawOrEncoded) {
  const auto rows = parsed(R"({"hour": 8, "site": "b"}
{"ids": [1, 2], "numerics": [0.25]}
)");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].ids, (Ids{2, 2}));
  EXPECT_EQ(rows[0].numerics, (std::vector<float>{0}));
  EXPECT_EQ(rows[1].ids, (Ids{1, 2}));
  EXPECT_EQ(rows[1].numerics, (std::vector<float>{0.25}));
}

TEST_F(ClickRows, EncodedRowsNeedNoEncoder) {
  EXPECT_EQ(parse_rows(R"({"ids": [1]})", "rows", {2}, 0, []() -> const RowEncoder& { throw Error("used"); })
                .size(),
            1u);
}

TEST_F(ClickRows, WhatDoesNotFitIsRefusedWithLineAndColumn) {
  EXPECT_EQ(refused("a\t7\t15\nb\tx\t15\n"),
            "rows, line 2, column 2 (hour): `x` is not a whole number of 64 bits");
  STOA_EXPECT_CONTAINS(refused("a\t0\t7\tinf\n"),
                       "rows, line 1, column 4 (price): `inf` is not a finite number");
  STOA_EXPECT_CONTAINS(refused("hour\tsite\n7\ta\n"), "rows, line 1: the header has no column `price`");
  STOA_EXPECT_CONTAINS(
      refused("price\thour\tsite\n1\t7\tnew\n"),
      "rows, line 2, column 3 (site): the value `new` of field site was not in the prepared data");
  STOA_EXPECT_CONTAINS(refused("price\thour\tsite\n1\t7\n"),
                       "rows, line 2, column 3: 2 columns under a header of 3");
  STOA_EXPECT_CONTAINS(refused("a\n"), "rows, line 1, column 2: 1 columns, needed are 4");
  STOA_EXPECT_CONTAINS(refused("a\t7\t1e300\n"), "column 3 (price): the number lies too far outside");
  STOA_EXPECT_CONTAINS(refused("\n \n"), "rows: there is no row to score");
}

TEST_F(ClickRows, JsonThatDoesNotFitIsRefusedWithItsLine) {
  STOA_EXPECT_CONTAINS(refused("{\"site\": \"a\"\n"), "rows, line 1, column 13: this is no JSON object");
  STOA_EXPECT_CONTAINS(refused("{\"price\": 1e999}\n"), "rows, line 1: a number is too large");
  STOA_EXPECT_CONTAINS(refused("{\"site\": \"new\"}\n"), "rows, line 1, column `site`: the value `new`");
  STOA_EXPECT_CONTAINS(refused("{\"hour\": 1.5}\n"),
                       "rows, line 1, column `hour`: `1.5` is not a whole number");
  STOA_EXPECT_CONTAINS(refused("{\"site\": true}\n"), "column `site` is boolean");
  STOA_EXPECT_CONTAINS(refused("{\"ids\": [1, 3], \"numerics\": [0]}\n"),
                       "id 3 of field 1 is not from 0 to 2");
  STOA_EXPECT_CONTAINS(refused("{\"ids\": [1, 18446744073709551615], \"numerics\": [0]}\n"),
                       "of field 1 is not");
  STOA_EXPECT_CONTAINS(refused("{\"ids\": [1, 1], \"numerics\": [1e300]}\n"), "no finite number");
  STOA_EXPECT_CONTAINS(refused("{\"ids\": [1, 1]}\n"), "`numerics` must be a list of 1 numbers");
}

TEST_F(ClickRows, JsonNestedDeeplyIsRefusedToo) {
  const std::string deep = std::string(500'000, '[') + std::string(500'000, ']');
  for (const std::string& row : {"{\"site\": " + deep + ", \"hour\": 7}", "{\"ids\": [1, " + deep + "]}"})
    STOA_EXPECT_CONTAINS(refused(row + "\n"), "rows, line 1: values are nested deeper than 4 levels");
}

}  // namespace
}  // namespace stoa::test
