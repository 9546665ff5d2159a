#include "stoa/data/tabular/dataset.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <set>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/progress.h"
#include "stoa/data/tabular/row_order.h"
#include "support/click_files.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

class Prepared : public ::testing::Test {
 protected:
  Prepared() {
    set_verbosity(Verbosity::kQuiet);
    write_text(folder_ / "train.txt", criteo_text(600));
    PrepareOptions options = prepare_options("criteo", {folder_ / "train.txt"}, out());
    options.split = "8:1:1";
    prepare_tabular(options);
  }
  fs::path out() const { return folder_ / "out"; }
  std::string refused() const {
    return thrown<DataError>([&] { open_tabular_dataset(out(), TabularSplit::kTrain); });
  }
  void alter(const std::string& name, std::size_t place) const {
    std::string bytes = read_file(out() / name);
    bytes.at(place) = static_cast<char>(bytes.at(place) ^ 1);
    write_text(out() / name, bytes);
  }

  TempDir folder_;
};

TEST_F(Prepared, BatchesHaveTheirShapesAndTypes) {
  const auto data = open_tabular_dataset(out(), TabularSplit::kTrain);
  const Batch batch = data->rows(std::vector<std::int64_t>{5, 0, 5});
  EXPECT_EQ(batch.samples, 3);
  EXPECT_EQ(batch["ids"].sizes(), (at::IntArrayRef{3, 26}));
  EXPECT_EQ(batch["ids"].scalar_type(), at::kInt);
  EXPECT_EQ(batch["numerics"].sizes(), (at::IntArrayRef{3, 13}));
  EXPECT_EQ(batch["labels"].scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(batch["ids"][0], batch["ids"][2]));
}

TEST_F(Prepared, TrainingPassesEveryRowOnceAnEpochInAnotherOrderEachTime) {
  const auto data = open_tabular_dataset(out(), TabularSplit::kTrain);
  const auto source = train_tabular_batches(data, {.batch_size = data->size(), .seed = 3});
  const Batch first = source->next(), second = source->next();
  EXPECT_FALSE(at::equal(first["ids"], second["ids"]));
  EXPECT_EQ(first["ids"].sum().item<std::int64_t>(), second["ids"].sum().item<std::int64_t>());
  EXPECT_EQ(first["labels"].sum().item<float>(), second["labels"].sum().item<float>());
}

TEST_F(Prepared, TrainingIsTheSameForAnyNumberOfWorkersAndFromAnyStep) {
  const auto data = open_tabular_dataset(out(), TabularSplit::kTrain);
  const auto alone = train_tabular_batches(data, {.batch_size = 100, .seed = 3});
  const auto helped =
      train_tabular_batches(data, {.batch_size = 100, .seed = 3, .first_step = 2, .workers = 3});
  alone->next();
  alone->next();
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(at::equal(alone->next()["ids"], helped->next()["ids"]));
}

TEST_F(Prepared, TestBatchesPassEveryRowOnceInOrder) {
  const auto data = open_tabular_dataset(out(), TabularSplit::kTest);
  const auto source = test_tabular_batches(data, {.batch_size = 7});
  std::int64_t rows = 0;
  for (Batch batch = source->next(); batch.samples > 0; batch = source->next()) {
    for (std::int64_t i = 0; i < batch.samples; ++i)
      EXPECT_TRUE(at::equal(batch["ids"][i], data->rows(std::vector<std::int64_t>{rows + i})["ids"][0]));
    rows += batch.samples;
  }
  EXPECT_EQ(rows, data->size());
}

TEST_F(Prepared, ASplitThatWasNotMadeIsRefused) {
  write_text(folder_ / "small.txt", criteo_text(20));
  PrepareOptions options = prepare_options("criteo", {folder_ / "small.txt"}, folder_ / "small");
  options.split = "1:0:0";
  prepare_tabular(options);
  STOA_EXPECT_CONTAINS(
      thrown<ConfigError>([&] { open_tabular_dataset(folder_ / "small", TabularSplit::kTest); }),
      "without test rows");
}

TEST_F(Prepared, AFolderWithoutDataIsRefused) {
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { open_tabular_dataset(folder_.path(), TabularSplit::kTrain); }),
                       "no prepared data there");
}

TEST_F(Prepared, AnAlteredBlockIsRefusedByFileAndBlock) {
  alter("data/train-000001.bin", 200);
  STOA_EXPECT_CONTAINS(refused(), "data/train-000001.bin, block 0: the block was altered");
}

TEST_F(Prepared, ATruncatedPartIsRefusedByFile) {
  fs::resize_file(out() / "data/train-000001.bin", 1000);
  STOA_EXPECT_CONTAINS(refused(), "data/train-000001.bin: truncated in block 0");
}

TEST_F(Prepared, AMissingPartIsRefusedByFile) {
  fs::remove(out() / "data/train-000001.bin");
  STOA_EXPECT_CONTAINS(refused(), "data/train-000001.bin: No such file");
}

TEST_F(Prepared, APartOfAnotherPreparationIsRefused) {
  write_text(folder_ / "other.txt", criteo_text(600, 8));
  prepare_tabular(prepare_options("criteo", {folder_ / "other.txt"}, folder_ / "other"));
  fs::copy_file(folder_ / "other/data/train-000001.bin", out() / "data/train-000001.bin",
                fs::copy_options::overwrite_existing);
  STOA_EXPECT_CONTAINS(refused(), "data/train-000001.bin: the rows belong to another preparation");
}

TEST_F(Prepared, AVocabularyOfAnotherDataSetIsRefused) {
  write_text(folder_ / "other.txt", criteo_text(300, 8));
  prepare_tabular(prepare_options("criteo", {folder_ / "other.txt"}, folder_ / "other"));
  fs::copy_file(folder_ / "other/vocabulary-003.bin", out() / "vocabulary-003.bin",
                fs::copy_options::overwrite_existing);
  STOA_EXPECT_CONTAINS(refused(), "vocabulary-003.bin: ");
}

TEST_F(Prepared, AnAlteredSchemaIsRefused) {
  std::string text = read_file(out() / "schema.json");
  text.replace(text.find("\"rows\": "), 9, "\"rows\": 9");
  write_text(out() / "schema.json", text);
  STOA_EXPECT_CONTAINS(refused(), "schema.json: ");
}

TEST_F(Prepared, AnAlteredCountIsRefused) {
  alter("counts.bin", 5);
  const auto data = open_tabular_dataset(out(), TabularSplit::kTrain);
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { data->frequencies(0); }), "counts.bin: altered");
}

TEST(RowOrder, PassesEveryRowOnceAnEpochOverManyBlocks) {
  const std::int64_t rows = 40 * RowOrder::kBlock + 1234;
  RowOrder order(rows, 7);
  std::vector<std::uint8_t> seen(rows);
  const std::int64_t batch = 131072;
  std::int64_t left = rows;
  for (std::int64_t step = 0; left > 0; ++step)
    for (const std::int64_t row : order.rows_of_step(step, batch))
      if (left-- > 0) ++seen[row];
  EXPECT_TRUE(std::ranges::all_of(seen, [](std::uint8_t times) { return times == 1; }));
}

TEST(RowOrder, ABatchTouchesFewBlocksOfLargeData) {
  RowOrder order(100 * RowOrder::kBlock, 7);
  std::set<std::int64_t> blocks;
  for (const std::int64_t row : order.rows_of_step(0, 131072)) blocks.insert(row / RowOrder::kBlock);
  EXPECT_EQ(blocks.size(), 16u);
}

TEST(RowOrder, IsAFunctionOfSeedAndStep) {
  RowOrder a(1000, 7), b(1000, 7), c(1000, 8);
  const auto rows = a.rows_of_step(5, 300);
  b.rows_of_step(2, 300);
  EXPECT_EQ(rows, b.rows_of_step(5, 300));
  EXPECT_NE(rows, c.rows_of_step(5, 300));
}

}  // namespace
}  // namespace stoa::test
