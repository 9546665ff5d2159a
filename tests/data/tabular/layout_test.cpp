#include "stoa/data/tabular/layout.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/click_files.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

/// Layouts of tables whose schema is given as text.
class Layout : public ::testing::Test {
 protected:
  RawLayout layout(const std::string& schema, const std::string& header = "site,click,price") {
    write_text(folder_ / "clicks.toml", schema);
    return csv_layout(folder_ / "clicks.toml", false, header, "clicks.csv");
  }
  std::string refused(const std::string& schema) {
    return thrown<ConfigError>([&] { layout(schema); });
  }
  TempDir folder_;
};

const std::string kSite = "label = \"click\"\ncategorical = [\"site\"]\n";

TEST_F(Layout, ColumnsThatTheSchemaDoesNotNameAreSkipped) {
  const RawLayout made = layout(kSite);
  ASSERT_EQ(made.columns.size(), 3u);
  EXPECT_EQ(made.columns[0].type, CellType::kText);
  EXPECT_EQ(made.columns[1].type, CellType::kLabel);
  EXPECT_EQ(made.columns[2].type, CellType::kSkip);
}

TEST_F(Layout, ASchemaThatCannotBeIsRefusedByLine) {
  STOA_EXPECT_CONTAINS(refused(kSite + "integer = [\"site\"]\n"),
                       "clicks.toml:3: column `site` is named twice");
  STOA_EXPECT_CONTAINS(refused(kSite + "separator = \"ab\"\n"), "clicks.toml:3: the separator must be one");
  STOA_EXPECT_CONTAINS(refused(kSite + "separator = \"a\"\n"), "clicks.toml:3: the separator must be one");
  STOA_EXPECT_CONTAINS(refused(kSite + "label_at_least = nan\n"), "clicks.toml:3: a finite number");
  STOA_EXPECT_CONTAINS(refused(kSite + "header = false\n"), "name all columns");
  STOA_EXPECT_CONTAINS(refused(kSite + "header = false\ncolumns = [\"click\", \"sit\"]\n"),
                       "clicks.toml:4: no column `site` is named there");
  STOA_EXPECT_CONTAINS(refused("label = \"click\"\nnumeric = [\"price\"]\n"), "no columns of ids");
  STOA_EXPECT_CONTAINS(refused("categorical = [\"site\"]\n"), "name the column of the label");
}

TEST_F(Layout, AHeaderThatDoesNotFitIsRefusedByFile) {
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { layout(kSite, "sit,click"); }),
                       "clicks.csv:1: no column `site` is named there; did you mean `sit`?");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { layout(kSite, "site,click,site"); }),
                       "clicks.csv:1, column 3: two columns are called `site`");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { avazu_layout(false, "id,clik,hour", "train"); }),
                       "train:1: no column `");
}

TEST_F(Layout, ComesBackFromItsJson) {
  std::string_view avazu = kAvazuHeader;
  avazu.remove_suffix(1);  // the end of the line
  for (const RawLayout& made : {layout(kSite), criteo_layout(true), avazu_layout(true, avazu, "train")})
    EXPECT_EQ(RawLayout::from_json(made.to_json(), "here").to_json(), made.to_json());
}

TEST_F(Layout, AFieldOfAColumnThatIsNotThereIsRefused) {
  Json json = criteo_layout(false).to_json();
  json["fields"][0]["column"] = 40;
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { RawLayout::from_json(json, "schema.json"); }),
                       "schema.json: a field names a column that is not there");
}

}  // namespace
}  // namespace stoa::test
