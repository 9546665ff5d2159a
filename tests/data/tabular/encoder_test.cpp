#include "stoa/data/tabular/encoder.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "stoa/base/progress.h"
#include "stoa/data/tabular/dataset.h"
#include "support/click_files.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

class Encoder : public ::testing::Test {
 protected:
  Encoder() {
    set_verbosity(Verbosity::kQuiet);
    write_text(folder_ / "clicks.toml",
               "label = \"click\"\ncategorical = [\"site\"]\ninteger = [\"hour\"]\nnumeric = [\"price\"]\n");
    write_text(folder_ / "clicks.csv", "site,click,hour,price\na,1,7,10\nb,0,8,20\na,0,7,30\n");
  }
  RowEncoder encoder(std::optional<std::int64_t> min_count = {}) {
    PrepareOptions options = prepare_options("csv", {folder_ / "clicks.csv"}, folder_ / "out");
    options.table_schema = folder_ / "clicks.toml";
    options.split = "1:0:0";
    options.min_count = min_count;
    prepare_tabular(options);
    return RowEncoder(folder_ / "out");
  }
  TempDir folder_;
};

TEST_F(Encoder, ALineGivesWhatPreparationGave) {
  const RowEncoder encoder = this->encoder();
  const auto data = open_tabular_dataset(folder_ / "out", TabularSplit::kTrain);
  const Batch batch = data->rows(std::vector<std::int64_t>{1});
  const EncodedRow row = encoder.from_line("b,0,8,20", "here");
  EXPECT_TRUE(at::equal(at::tensor(row.ids, at::kInt), batch["ids"][0]));
  EXPECT_TRUE(at::equal(at::tensor(row.numerics), batch["numerics"][0]));
}

TEST_F(Encoder, TheLabelMayBeAbsent) {
  const RowEncoder encoder = this->encoder();
  EXPECT_EQ(encoder.from_line("a,7,15", "here").ids, encoder.from_line("a,?,7,15", "here").ids);
}

TEST_F(Encoder, ColumnsMayStandInAnotherOrderUnderAHeader) {
  const RowEncoder encoder = this->encoder();
  const RowHeader header{{"price", "site", "hour"}, ','};
  const EncodedRow row = encoder.from_line("20,\"b\",8\r", header, "here");
  EXPECT_EQ(row.ids, (std::vector<std::int32_t>{1, 1}));
  EXPECT_EQ(row.numerics, (std::vector<float>{0.5f}));
}

TEST_F(Encoder, TellsAHeaderByItsNames) {
  const RowEncoder encoder = this->encoder();
  EXPECT_EQ(encoder.header("price,\"site\",other,hour\r", "here").value().names,
            (std::vector<std::string>{"price", "site", "other", "hour"}));
  EXPECT_FALSE(encoder.header("site,1,7,10", "here").has_value());
}

TEST_F(Encoder, ColumnsAreCountedAsTheyStandInTheLine) {
  const RowEncoder encoder = this->encoder();
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { encoder.from_line("a,x,20", "in:2"); }),
                       "in:2, column 2 (hour): `x`");
  const RowHeader header{{"price", "site", "hour"}, ','};
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { encoder.from_line("x,a,7", header, "in:2"); }),
                       "in:2, column 1 (price): `x`");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { encoder.from_json(Json::parse(R"({"hour": "x"})"), "in:2"); }),
                       "in:2, column `hour`: `x`");
}

TEST_F(Encoder, ReadsJsonObjects) {
  const RowEncoder encoder = this->encoder();
  const EncodedRow row = encoder.from_json(Json::parse(R"({"site": "b", "hour": 7, "price": 25.0})"), "here");
  EXPECT_EQ(row.ids, (std::vector<std::int32_t>{1, 0}));
  EXPECT_EQ(row.numerics, (std::vector<float>{0.75f}));
}

TEST_F(Encoder, RefusesAValueItHasNoIdForByName) {
  const RowEncoder encoder = this->encoder();
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { encoder.from_line("c,0,8,20", "stdin:4"); }),
                       "stdin:4, column 1 (site): the value `c` of field site was not in the prepared data");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { encoder.from_line("a,0,9,20", "stdin:4"); }),
                       "column 3 (hour): the value `9` of field hour");
}

TEST_F(Encoder, NewValuesAreUnknownUnderAThreshold) {
  const RowEncoder encoder = this->encoder(2);
  EXPECT_EQ(encoder.from_line("c,0,7,20", "here").ids, (std::vector<std::int32_t>{0, 1}));
}

TEST_F(Encoder, RefusesWhatPreparationWouldRefuse) {
  const RowEncoder encoder = this->encoder();
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { encoder.from_line("a,0,x,20", "in:2"); }),
                       "in:2, column 3 (hour): `x`");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { encoder.from_line("a,0,7,inf", "in:2"); }),
                       "in:2, column 4 (price): `inf`");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { encoder.from_line("a", "in:2"); }),
                       "in:2, column 2: 1 columns, needed are 4");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { encoder.from_json(Json::parse(R"({"sit": 1})"), "in:2"); }),
                       "no column `sit`; did you mean `site`?");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { encoder.from_json(Json::parse("[1]"), "in:2"); }),
                       "not a JSON object");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { encoder.from_json(Json::parse(R"({"site": [1]})"), "in:2"); }),
                       "column `site` is array");
}

}  // namespace
}  // namespace stoa::test
