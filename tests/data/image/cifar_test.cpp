#include "stoa/data/image/cifar.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "stoa/data/image/dataset.h"
#include "support/image_files.h"
#include "support/temp_dir.h"
#include "support/test_data.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using test::Bytes;

/// One record: label bytes, then a red, a green and a blue plane of these values.
Bytes record(Bytes labels, std::uint8_t red = 1, std::uint8_t green = 2, std::uint8_t blue = 3) {
  for (const auto value : {red, green, blue}) labels.insert(labels.end(), 1024, value);
  return labels;
}

std::unique_ptr<ImageDataset> open(const std::filesystem::path& path,
                                   ImageFormat format = ImageFormat::kCifar10, Split split = Split::kTrain,
                                   std::int64_t classes = 10) {
  ImageDataOptions options;
  options.format = format;
  options.path = path.string();
  options.classes = classes;
  return open_image_dataset(options, split);
}

TEST(ParseCifar, InterleavesThePlanes) {
  Bytes bytes = record({7});
  bytes[1 + 1] = 100;     // red of the second pixel
  bytes[1 + 3071] = 200;  // blue of the last pixel
  const CifarImages images = parse_cifar(bytes, 1, "file");
  EXPECT_EQ(images.labels, std::vector<std::int64_t>{7});
  EXPECT_EQ(Bytes(images.pixels.begin(), images.pixels.begin() + 6), (Bytes{1, 2, 3, 100, 2, 3}));
  EXPECT_EQ(images.pixels.back(), 200);
}

TEST(ParseCifar, TakesTheFineLabel) {
  EXPECT_EQ(parse_cifar(record({11, 42}), 2, "file").labels, std::vector<std::int64_t>{42});
}

TEST(ParseCifar, RefusesPartsOfRecords) {
  for (const std::size_t size : {0, 1, 3072, 3074}) {
    const auto message = test::thrown<DataError>([&] { parse_cifar(Bytes(size), 1, "file"); });
    STOA_EXPECT_CONTAINS(message, "file: truncated or another format");
    STOA_EXPECT_CONTAINS(message, "get the file again");
  }
}

TEST(OpenCifar10, ReadsFiveTrainingFilesAndTheTestFile) {
  const test::TempDir dir;
  for (int i = 1; i <= 5; ++i)
    test::save(dir / ("data_batch_" + std::to_string(i) + ".bin"), record({static_cast<std::uint8_t>(i)}));
  Bytes two = record({8});
  test::append(two, record({9}));
  test::save(dir / "test_batch.bin", two);
  const auto train = open(dir.path());
  EXPECT_EQ(train->size(), 5);
  EXPECT_EQ(train->get(4).label, 5);
  STOA_EXPECT_CONTAINS(train->name(4), "data_batch_5.bin, record 0");
  const auto test = open(dir.path(), ImageFormat::kCifar10, Split::kTest);
  EXPECT_EQ(test->get(1).label, 9);
  STOA_EXPECT_CONTAINS(test->name(1), "test_batch.bin, record 1");
}

TEST(OpenCifar10, LooksIntoTheArchivesFolder) {
  const test::TempDir dir;
  test::save(dir / "cifar-10-batches-bin/test_batch.bin", record({3}));
  EXPECT_EQ(open(dir.path(), ImageFormat::kCifar10, Split::kTest)->get(0).label, 3);
}

TEST(OpenCifar10, NamesAMissingFile) {
  const test::TempDir dir;
  test::save(dir / "data_batch_1.bin", record({1}));
  const auto message = test::thrown<DataError>([&] { open(dir.path()); });
  STOA_EXPECT_CONTAINS(message, "data_batch_2.bin: not found");
  STOA_EXPECT_CONTAINS(message, "data.path");
}

TEST(OpenCifar10, NamesALabelOutOfRange) {
  const test::TempDir dir;
  test::save(dir / "test_batch.bin", record({10}));
  const auto message =
      test::thrown<DataError>([&] { open(dir.path(), ImageFormat::kCifar10, Split::kTest); });
  STOA_EXPECT_CONTAINS(message, "test_batch.bin, record 0: label 10, but data.classes = 10 allows 0 to 9");
}

TEST(OpenCifar10, RefusesAnotherClassCount) {
  const test::TempDir dir;
  const auto message =
      test::thrown<DataError>([&] { open(dir.path(), ImageFormat::kCifar10, Split::kTest, 100); });
  STOA_EXPECT_CONTAINS(message, "10 classes, but data.classes = 100; set data.classes = 10");
}

TEST(OpenCifar100, ReadsFineLabelsAndTheirNames) {
  const test::TempDir dir;
  test::save(dir / "train.bin", record({3, 99}));
  std::string names;
  for (int i = 0; i < 100; ++i) names += "class " + std::to_string(i) + "\r\n";
  test::save(dir / "fine_label_names.txt", test::text(names + "\n"));
  const auto data = open(dir.path(), ImageFormat::kCifar100, Split::kTrain, 100);
  EXPECT_EQ(data->get(0).label, 99);
  EXPECT_EQ(data->class_names().at(99), "class 99");
  STOA_EXPECT_CONTAINS(
      test::thrown<DataError>([&] { open(dir.path(), ImageFormat::kCifar100, Split::kTest, 100); }),
      "test.bin: not found");
}

TEST(OpenCifar10, ReadsTheSampleAsBothSplits) {
  STOA_NEEDS_TEST_DATA("cifar10/sample_batch.bin");
  const test::TempDir dir;
  for (const char* name : {"sample_batch.bin", "batches.meta.txt"})
    std::filesystem::copy_file(test::test_data("cifar10") / name, dir / name);
  for (const Split split : {Split::kTrain, Split::kTest}) {
    const auto data = open(dir.path(), ImageFormat::kCifar10, split);
    EXPECT_EQ(data->size(), 200);
    EXPECT_EQ(data->class_names().at(6), "frog");
    std::vector<int> counts(10);
    for (std::int64_t i = 0; i < 200; ++i) ++counts.at(data->get(i).label);
    EXPECT_EQ(counts, std::vector<int>(10, 20));
  }
}

}  // namespace
}  // namespace stoa
