#include "stoa/data/tabular/prepare.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "stoa/base/errors.h"
#include "stoa/base/progress.h"
#include "stoa/data/tabular/dataset.h"
#include "stoa/data/tabular/statistics.h"
#include "support/click_files.h"
#include "support/test_data.h"
#include "support/thrown.h"
#include "support/zstd_file.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

class Prepare : public ::testing::Test {
 protected:
  Prepare() { set_verbosity(Verbosity::kQuiet); }

  /// Every row of a split, in order.
  static Batch all(const fs::path& folder, TabularSplit split) {
    const auto data = open_tabular_dataset(folder, split);
    std::vector<std::int64_t> numbers(data->size());
    std::iota(numbers.begin(), numbers.end(), 0);
    return data->rows(numbers);
  }

  PrepareOptions criteo(const std::string& text, const std::string& out = "out") {
    write_text(folder_ / "train.txt", text);
    return prepare_options("criteo", {folder_ / "train.txt"}, folder_ / out);
  }

  TempDir folder_;
};

TEST_F(Prepare, ExactIdsAreRanksInSortedOrderWithTheEmptyCellFirst) {
  PrepareOptions options =
      criteo(criteo_line("1", {"4"}, {"000000ff", "b0000000"}) + criteo_line("0", {""}, {"", "a0000000"}) +
             criteo_line("0", {"-2"}, {"0000000a", "b0000000"}));
  options.split = "1:0:0";
  prepare_tabular(options);
  const Batch rows = all(folder_ / "out", TabularSplit::kTrain);
  EXPECT_TRUE(at::equal(rows["ids"].narrow(1, 0, 3),
                        at::tensor({2, 1, 0, 0, 0, 0, 1, 1, 0}, at::kInt).reshape({3, 3})))
      << rows["ids"].narrow(1, 0, 3);
  EXPECT_TRUE(at::equal(rows["labels"], at::tensor({1.f, 0.f, 0.f})));
}

TEST_F(Prepare, OfficialNumbersAreScaledOverAllRowsWithEmptyCellsAsZero) {
  PrepareOptions options =
      criteo(criteo_line("1", {"4"}, {}) + criteo_line("0", {""}, {}) + criteo_line("0", {"-1"}, {}));
  options.split = "1:0:0";
  prepare_tabular(options);
  const at::Tensor numbers = all(folder_ / "out", TabularSplit::kTrain)["numerics"];
  EXPECT_TRUE(at::allclose(numbers.select(1, 0), at::tensor({1.f, 0.2f, 0.f}))) << numbers.select(1, 0);
  EXPECT_EQ(numbers.select(1, 1).abs().max().item<float>(), 0);  // a column that never changes
}

TEST_F(Prepare, BarsBucketsNumbersIntoFields) {
  PrepareOptions options =
      criteo(criteo_line("1", {"100", "-3", "2", "3"}, {}) + criteo_line("0", {"", "1.5"}, {}));
  options.bars = true;
  options.split = "1:0:0";
  options.vocabulary = VocabularyKind::kExact;
  const PreparedFolder folder = prepare_tabular(options);
  ASSERT_EQ(folder.encoding.sizes.size(), 39u);
  EXPECT_TRUE(folder.encoding.ranges.empty());
  const auto values = [&](std::size_t field) {
    std::vector<std::string> texts;
    for (std::int64_t id = 0; id < folder.encoding.sizes[field]; ++id)
      texts.push_back(folder.encoding.values[field]->text(id));
    return texts;
  };
  using Texts = std::vector<std::string>;
  EXPECT_EQ(values(0), (Texts{"0", "21"}));  // ln(100)^2 = 21.2
  EXPECT_EQ(values(1), (Texts{"-3", "1"}));
  EXPECT_EQ(values(2), (Texts{"0", "2"}));
  EXPECT_EQ(values(3), (Texts{"0", "1"}));  // ln(3)^2 = 1.2
}

TEST_F(Prepare, IntegerColumnsOfAvazuSortAsNumbers) {
  write_text(folder_ / "train", avazu_text());
  PrepareOptions options = prepare_options("avazu", {folder_ / "train"}, folder_ / "out");
  options.split = "1:0:0";
  const PreparedFolder folder = prepare_tabular(options);
  ASSERT_EQ(folder.encoding.sizes.size(), 22u);
  const auto& fields = folder.encoding.layout.fields;
  const auto field =
      static_cast<std::size_t>(std::ranges::find(fields, "C14", &FieldLayout::name) - fields.begin());
  EXPECT_EQ(folder.encoding.values[field]->text(0), "999");
  EXPECT_EQ(folder.encoding.values[field]->text(1), "15706");
}

TEST_F(Prepare, BarsMakesHourWeekdayAndWeekendOfAvazusHour) {
  write_text(folder_ / "train", avazu_text());
  PrepareOptions options = prepare_options("avazu", {folder_ / "train"}, folder_ / "out");
  options.bars = true;
  options.split = "1:0:0";
  options.vocabulary = VocabularyKind::kExact;
  const PreparedFolder folder = prepare_tabular(options);
  ASSERT_EQ(folder.encoding.sizes.size(), 24u);
  const auto values = [&](std::size_t field) {
    return folder.encoding.values[field]->text(0) + " " + folder.encoding.values[field]->text(1);
  };
  EXPECT_EQ(values(0), "0 13");
  EXPECT_EQ(values(22), "2 6");  // Tuesday, Saturday
  EXPECT_EQ(values(23), "0 1");
}

TEST_F(Prepare, ValuesBelowTheThresholdShareIdZero) {
  std::string text;
  for (int i = 0; i < 3; ++i) text += criteo_line("0", {}, {"00000001"});
  text += criteo_line("1", {}, {"00000002"});
  PrepareOptions options = criteo(text);
  options.split = "1:0:0";
  options.min_count = 3;
  prepare_tabular(options);
  const Batch rows = all(folder_ / "out", TabularSplit::kTrain);
  EXPECT_TRUE(at::equal(rows["ids"].select(1, 0), at::tensor({1, 1, 1, 0}, at::kInt)));
  EXPECT_TRUE(open_tabular_dataset(folder_ / "out", TabularSplit::kTrain)->schema().fields[0].has_unknown);
}

TEST_F(Prepare, DefaultsAreThoseOfThePublishedPreprocessing) {
  const auto command = [&](const std::string& source, const std::string& text, bool bars) {
    write_text(folder_ / source, text);
    PrepareOptions options =
        prepare_options(source, {folder_ / source}, folder_ / (source + (bars ? "-bars" : "-official")));
    options.bars = bars;
    return prepare_tabular(options).command;
  };
  std::string avazu = avazu_text();  // enough rows that one is for training
  const std::string rows = avazu_text().substr(std::string_view(kAvazuHeader).size());
  for (int i = 0; i < 50; ++i) avazu += rows;
  const Json criteo_bars = command("criteo", criteo_text(100), true),
             avazu_bars = command("avazu", avazu, true);
  EXPECT_EQ(criteo_bars.at("vocabulary"), "threshold");
  EXPECT_EQ(criteo_bars.at("min_count"), 10);
  EXPECT_EQ(avazu_bars.at("min_count"), 2);
  EXPECT_EQ(criteo_bars.at("split"), "8:1:1");
  EXPECT_EQ(command("criteo", criteo_text(100), false).at("vocabulary"), "exact");
}

TEST_F(Prepare, TheOfficialTestShareIsATenthOfCriteoAndAFifthOfAvazu) {
  const auto share = [](const std::string& source) {
    const RowSplit split("random", source, 0);
    int tests = 0;
    for (std::int64_t row = 0; row < 20000; ++row) tests += split.of(row) == TabularSplit::kTest;
    return tests / 20000.0;
  };
  EXPECT_NEAR(share("criteo"), 0.1, 0.01);
  EXPECT_NEAR(share("avazu"), 0.2, 0.01);
}

TEST_F(Prepare, AThresholdCountsTrainingRowsOnly) {
  PrepareOptions options = criteo(criteo_text(2000));
  options.split = "1:0:1";
  options.min_count = 1;
  const PreparedFolder folder = prepare_tabular(options);
  const auto counts = folder.read_counts();
  for (const auto& field : counts)
    for (std::size_t id = 1; id < field.size(); ++id) ASSERT_GT(field[id], 0u);
}

TEST_F(Prepare, HashedIdsStayBelowTheBucketsAndDependOnTheSeed) {
  PrepareOptions options = criteo(criteo_text(500));
  options.vocabulary = VocabularyKind::kHash;
  options.buckets = 50;
  prepare_tabular(options);
  options.out = folder_ / "other";
  options.seed = 1;
  options.split = "9:0:1";
  prepare_tabular(options);
  const auto one = open_tabular_dataset(folder_ / "out", TabularSplit::kTrain);
  EXPECT_EQ(one->schema().fields[0].size, 50);
  EXPECT_LT(all(folder_ / "out", TabularSplit::kTrain)["ids"].max().item<int>(), 50);
  EXPECT_NE(one->schema().vocabulary_hash,
            open_tabular_dataset(folder_ / "other", TabularSplit::kTrain)->schema().vocabulary_hash);
}

TEST_F(Prepare, ARandomSplitKeepsEveryRowOnceInOrder) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += criteo_line(i % 2 != 0 ? "1" : "0", {std::to_string(i)}, {});
  PrepareOptions options = criteo(text);
  options.split = "8:1:1";
  prepare_tabular(options);
  std::multiset<long> seen;
  for (const auto split : {TabularSplit::kTrain, TabularSplit::kValidation, TabularSplit::kTest}) {
    const at::Tensor numbers = all(folder_ / "out", split)["numerics"].select(1, 0).to(at::kDouble) * 2999;
    EXPECT_TRUE((numbers.diff() > 0).all().item<bool>());
    for (std::int64_t i = 0; i < numbers.numel(); ++i) seen.insert(std::lround(numbers[i].item<double>()));
    EXPECT_NEAR(static_cast<double>(numbers.numel()) / 3000, split == TabularSplit::kTrain ? 0.8 : 0.1, 0.03);
  }
  EXPECT_EQ(seen.size(), 3000u);
  EXPECT_EQ(std::set<long>(seen.begin(), seen.end()).size(), 3000u);
}

TEST_F(Prepare, TheSequentialSplitTestsOnTheLastSeventh) {
  std::string text;
  for (int i = 0; i < 700; ++i) text += criteo_line("0", {std::to_string(i)}, {});
  PrepareOptions options = criteo(text);
  options.split = "seq";
  prepare_tabular(options);
  const at::Tensor test = all(folder_ / "out", TabularSplit::kTest)["numerics"].select(1, 0) * 699;
  EXPECT_EQ(test.numel(), 100);
  EXPECT_NEAR(test.min().item<float>(), 600, 0.01);
}

TEST_F(Prepare, TheResultDoesNotDependOnHowTheInputIsPacked) {
  const std::string text = criteo_text(800);
  PrepareOptions options = criteo(text);
  prepare_tabular(options);
  auto plain = folder_contents(folder_ / "out");
  plain.erase("schema.json");  // names the input
  EXPECT_GT(plain.size(), 10u);
  write_gzip(folder_ / "gz", text);
  write_zstd(folder_ / "zst", text);
  for (const std::string packing : {"gz", "zst"}) {
    options.inputs = {folder_ / packing};
    options.out = folder_ / (packing + "-out");
    prepare_tabular(options);
    auto packed = folder_contents(options.out);
    packed.erase("schema.json");
    EXPECT_TRUE(plain == packed) << packing;
  }
}

TEST_F(Prepare, RowsOfSeveralFilesFollowEachOther) {
  write_text(folder_ / "a.txt", criteo_line("1", {"1"}, {}) + criteo_line("0", {"2"}, {}));
  write_text(folder_ / "b.txt", criteo_line("1", {"3"}, {}));
  PrepareOptions options = prepare_options("criteo", {folder_ / "a.txt", folder_ / "b.txt"}, folder_ / "out");
  options.split = "1:0:0";
  prepare_tabular(options);
  EXPECT_TRUE(at::allclose(all(folder_ / "out", TabularSplit::kTrain)["numerics"].select(1, 0),
                           at::tensor({0.f, 0.5f, 1.f})));
}

TEST_F(Prepare, CountsAreThoseOfTheTrainingRows) {
  PrepareOptions options = criteo(criteo_text(1500));
  prepare_tabular(options);
  const auto data = open_tabular_dataset(folder_ / "out", TabularSplit::kTrain);
  const at::Tensor ids = all(folder_ / "out", TabularSplit::kTrain)["ids"];
  for (std::int64_t field = 0; field < 26; ++field) {
    const auto counts = data->frequencies(field);
    const at::Tensor counted = at::bincount(ids.select(1, field), {}, data->schema().fields[field].size);
    EXPECT_TRUE(at::equal(at::tensor(counts, at::kLong), counted));
  }
}

TEST_F(Prepare, AGrownVocabularyKeepsOldIdsAndAppendsNewOnes) {
  PrepareOptions options =
      criteo(criteo_line("1", {"0"}, {"00000005"}) + criteo_line("0", {"10"}, {"00000007"}));
  options.split = "1:0:0";
  prepare_tabular(options);
  write_text(folder_ / "day2.txt",
             criteo_line("1", {"20"}, {"00000001"}) + criteo_line("0", {"5"}, {"00000007"}));
  options.inputs = {folder_ / "day2.txt"};
  options.out = folder_ / "day2";
  options.vocabulary_of = folder_ / "out";
  prepare_tabular(options);
  const Batch rows = all(folder_ / "day2", TabularSplit::kTrain);
  EXPECT_TRUE(at::equal(rows["ids"].select(1, 0), at::tensor({2, 1}, at::kInt)));
  EXPECT_TRUE(at::allclose(rows["numerics"].select(1, 0), at::tensor({2.f, 0.5f})));  // on the old scale
  const auto old_schema = open_tabular_dataset(folder_ / "out", TabularSplit::kTrain)->schema();
  EXPECT_EQ(open_tabular_dataset(folder_ / "day2", TabularSplit::kTrain)->schema().grown_from,
            old_schema.vocabulary_hash);
}

TEST_F(Prepare, AGrownThresholdKeepsOldIdsAndItsLeastCount) {
  PrepareOptions options = criteo(criteo_line("1", {}, {"00000005"}) + criteo_line("0", {}, {"00000005"}) +
                                  criteo_line("0", {}, {"00000007"}));
  options.split = "1:0:0";
  options.min_count = 2;
  prepare_tabular(options);
  write_text(folder_ / "day2.txt", criteo_line("1", {}, {"00000007"}) + criteo_line("0", {}, {"00000007"}) +
                                       criteo_line("1", {}, {"00000005"}) +
                                       criteo_line("1", {}, {"00000009"}));
  options.inputs = {folder_ / "day2.txt"};
  options.out = folder_ / "day2";
  options.vocabulary_of = folder_ / "out";
  options.min_count = {};
  prepare_tabular(options);
  EXPECT_TRUE(at::equal(all(folder_ / "day2", TabularSplit::kTrain)["ids"].select(1, 0),
                        at::tensor({2, 2, 1, 0}, at::kInt)));
}

TEST_F(Prepare, AGrownHashKeepsItsBucketsAndSeed) {
  PrepareOptions options = criteo(criteo_text(50));
  options.vocabulary = VocabularyKind::kHash;
  options.buckets = 40;
  options.seed = 3;
  options.split = "1:0:0";
  prepare_tabular(options);
  options.vocabulary_of = folder_ / "out";
  options.out = folder_ / "day2";
  options.buckets = 1000;
  options.seed = 4;
  prepare_tabular(options);
  EXPECT_TRUE(at::equal(all(folder_ / "out", TabularSplit::kTrain)["ids"],
                        all(folder_ / "day2", TabularSplit::kTrain)["ids"]));
}

TEST_F(Prepare, AGrownExactVocabularyHasNoLeastCount) {
  PrepareOptions options = criteo(criteo_text(30));
  options.bars = true;  // whose own vocabulary would be by threshold
  options.vocabulary = VocabularyKind::kExact;
  prepare_tabular(options);
  options.vocabulary = {};
  options.vocabulary_of = folder_ / "out";
  options.out = folder_ / "day2";
  EXPECT_EQ(prepare_tabular(options).encoding.kind, VocabularyKind::kExact);
  options.min_count = 5;
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { prepare_tabular(options); }),
                       "--min-count is for a vocabulary by threshold");
}

TEST_F(Prepare, ANumberFarOutsideTheOldScaleIsRefusedWithItsPlace) {
  PrepareOptions options = criteo(criteo_line("1", {"0"}, {}) + criteo_line("0", {"1"}, {}));
  options.split = "1:0:0";
  prepare_tabular(options);
  write_text(folder_ / "day2.txt", criteo_line("1", {"5"}, {}) + criteo_line("0", {"1e300"}, {}));
  options.inputs = {folder_ / "day2.txt"};
  options.out = folder_ / "day2";
  options.vocabulary_of = folder_ / "out";
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { prepare_tabular(options); }),
                       "day2.txt:2, column 2 (I1): the number lies too far outside");
}

TEST_F(Prepare, AVocabularyOfOtherColumnsIsNotGrown) {
  PrepareOptions options = criteo(criteo_text(20));
  prepare_tabular(options);
  write_text(folder_ / "avazu", avazu_text());
  PrepareOptions other = prepare_options("avazu", {folder_ / "avazu"}, folder_ / "other");
  other.vocabulary_of = folder_ / "out";
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { prepare_tabular(other); }),
                       "a vocabulary grows only with data of the same form");
}

TEST_F(Prepare, AnEmptyTrainingSetIsRefused) {
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { prepare_tabular(criteo("")); }),
                       "train.txt: no training rows in 0 rows");
}

TEST_F(Prepare, ARowInALaterChunkIsNamedByItsLine) {
  std::string text = criteo_text(900);
  text += criteo_line("2", {}, {});
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { prepare_tabular(criteo(text)); }),
                       "train.txt:901, column 1 (label): `2` is no label");
}

TEST_F(Prepare, OfSeveralFaultsTheFirstIsNamed) {
  std::string text;
  for (int i = 0; i < 900; ++i) text += criteo_line(i % 100 == 99 ? "x" : "0", {}, {});
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { prepare_tabular(criteo(text)); }), "train.txt:100,");
}

TEST_F(Prepare, TextColumnsOfATableAreSortedAsText) {
  write_text(folder_ / "clicks.toml", "label = \"click\"\ncategorical = [\"site\"]\nnumeric = [\"price\"]\n");
  write_text(folder_ / "clicks.csv",
             "site,click,unused,price\n\"b, \"\"x\"\"\",1,?,0.5\nB,0,?,1.5\n,1,?,\na,0,?,1e0\n");
  PrepareOptions options = prepare_options("csv", {folder_ / "clicks.csv"}, folder_ / "out");
  options.table_schema = folder_ / "clicks.toml";
  options.split = "1:0:0";
  const PreparedFolder folder = prepare_tabular(options);
  const Vocabulary& sites = *folder.encoding.values.at(0);
  ASSERT_EQ(sites.size(), 4);
  EXPECT_EQ(sites.text(0) + sites.text(1) + sites.text(2) + sites.text(3), "-1Bab, \"x\"");
  const Batch rows = all(folder_ / "out", TabularSplit::kTrain);
  EXPECT_TRUE(at::equal(rows["ids"].select(1, 0), at::tensor({3, 1, 0, 2}, at::kInt)));
  EXPECT_TRUE(at::allclose(rows["numerics"].select(1, 0), at::tensor({1.f / 3, 1.f, 0.f, 2.f / 3})));
}

TEST_F(Prepare, ATableWithTabsNeedsNoHeader) {
  write_text(
      folder_ / "clicks.toml",
      "label = \"y\"\nseparator = \"\\t\"\nheader = false\ncolumns = [\"i\", \"y\"]\ninteger = [\"i\"]\n");
  write_text(folder_ / "clicks.tsv", "10\t1\n9\t0\n");
  PrepareOptions options = prepare_options("csv", {folder_ / "clicks.tsv"}, folder_ / "out");
  options.table_schema = folder_ / "clicks.toml";
  options.split = "1:0:0";
  prepare_tabular(options);
  EXPECT_TRUE(at::equal(all(folder_ / "out", TabularSplit::kTrain)["ids"].select(1, 0),
                        at::tensor({1, 0}, at::kInt)));
}

TEST_F(Prepare, MovieLensSmallHasItsKnownCounts) {
  STOA_NEEDS_TEST_DATA("movielens-small");
  PrepareOptions options = prepare_options("movielens", {test_data("movielens-small")}, folder_ / "out");
  options.chunk_bytes = 1 << 20;
  prepare_tabular(options);
  const TabularStatistics statistics = describe_tabular(folder_ / "out");
  std::int64_t rows = 0, positives = 0;
  for (const auto& split : statistics.splits) rows += split.rows, positives += split.positives;
  EXPECT_EQ(rows, 100836);
  EXPECT_NEAR(static_cast<double>(positives) / static_cast<double>(rows), 0.482, 0.0005);
  EXPECT_EQ(statistics.fields.at(0).size, 610);
  EXPECT_EQ(statistics.fields.at(1).size, 9724);
  EXPECT_EQ(statistics.fields.at(4).size, 24);
  EXPECT_EQ(statistics.fields.at(5).size, 7);
}

}  // namespace
}  // namespace stoa::test
