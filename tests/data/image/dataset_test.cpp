#include "stoa/data/image/dataset.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>

#include "stoa/base/errors.h"
#include "support/image_files.h"
#include "support/temp_dir.h"
#include "support/test_data.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using test::Bytes;

ImageDataOptions folder_options(const test::TempDir& dir) {
  for (int i = 0; i < 3; ++i) {
    const auto value = static_cast<std::uint8_t>(10 * i);
    test::save(dir / ("train/cat/" + std::to_string(i) + ".png"), test::plain_png(6, value));
    test::save(dir / ("train/dog/" + std::to_string(i) + ".png"),
               test::plain_png(6, static_cast<std::uint8_t>(100 + value)));
  }
  ImageDataOptions options;
  options.path = dir.path().string();
  options.classes = 2;
  options.image_size = 4;
  return options;
}

void damage(const test::TempDir& dir) {
  test::save(dir / "train/cat/1.png", test::cut(test::plain_png(6, 1), 60));
}

TEST(Synthetic, ImagesAreTheSameEveryTime) {
  ImageDataOptions options;
  options.format = ImageFormat::kSynthetic;
  options.image_size = 16;
  options.classes = 3;
  options.train_limit = 12;
  const auto a = open_image_dataset(options, Split::kTrain), b = open_image_dataset(options, Split::kTrain);
  EXPECT_EQ(a->size(), 12);
  for (std::int64_t i = 0; i < 12; ++i) {
    EXPECT_EQ(a->get(i).label, i % 3);
    EXPECT_EQ(a->get(i).image.pixels, b->get(i).image.pixels);
  }
  EXPECT_NE(a->get(0).image.pixels, a->get(3).image.pixels);
  EXPECT_NE(a->get(0).image.pixels, open_image_dataset(options, Split::kTest)->get(0).image.pixels);
}

TEST(Synthetic, ImagesOfAClassAreMoreAlikeThanOthers) {
  ImageDataOptions options;
  options.format = ImageFormat::kSynthetic;
  options.image_size = 32;
  options.channels = 1;
  options.classes = 4;
  const auto data = open_image_dataset(options, Split::kTrain);
  const auto distance = [&](std::int64_t i, std::int64_t j) {
    const Bytes a = data->get(i).image.pixels, b = data->get(j).image.pixels;
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0, std::plus<>(),
                              [](double x, double y) { return (x - y) * (x - y); });
  };
  for (std::int64_t other = 1; other < 4; ++other) EXPECT_LT(distance(0, 4), 0.8 * distance(0, other));
}

TEST(OpenImageDataset, TakesTheFirstImagesUpToTheLimit) {
  const test::TempDir dir;
  auto options = folder_options(dir);
  options.train_limit = 4;
  const auto data = open_image_dataset(options, Split::kTrain);
  ASSERT_EQ(data->size(), 4);
  EXPECT_EQ(data->get(2).label, 0);  // classes in turn
  EXPECT_EQ(data->get(3).label, 1);
  EXPECT_EQ(data->class_names().size(), 2u);
}

TEST(OpenImageDataset, KeepsImagesInMemoryAtTheModelsSize) {
  const test::TempDir dir;
  auto options = folder_options(dir);
  options.in_memory = true;
  options.channels = 1;
  const auto data = open_image_dataset(options, Split::kTrain);
  std::filesystem::remove_all(dir / "train");
  const auto view = data->view(3);
  ASSERT_TRUE(view.has_value());
  EXPECT_EQ(view->height, 4);
  EXPECT_EQ(view->channels, 1);
  EXPECT_EQ(view->pixels[0], 110);
  EXPECT_EQ(view->label, 1);
  STOA_EXPECT_CONTAINS(data->name(3), "dog/1.png");
}

TEST(OpenImageDataset, NamesADamagedImageWhenItKeepsThemInMemory) {
  const test::TempDir dir;
  auto options = folder_options(dir);
  options.in_memory = true;
  damage(dir);
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { open_image_dataset(options, Split::kTrain); }),
                       "train/cat/1.png: truncated or damaged PNG");
}

TEST(OpenImageDataset, SkipsDamagedImagesAndNamesThem) {
  for (const bool in_memory : {false, true}) {
    const test::TempDir dir;
    auto options = folder_options(dir);
    options.in_memory = in_memory;
    options.corrupt = CorruptImages::kSkip;
    damage(dir);
    testing::internal::CaptureStderr();
    const auto data = open_image_dataset(options, Split::kTrain);
    STOA_EXPECT_CONTAINS(testing::internal::GetCapturedStderr(),
                         "warning: skipped " + (dir / "train/cat/1.png").string());
    ASSERT_EQ(data->size(), 5);
    EXPECT_EQ(data->get(2).image.pixels[0], 110);  // what follows the damaged one
    STOA_EXPECT_CONTAINS(data->name(2), "dog/1.png");
  }
}

TEST(OpenImageDataset, RefusesWhenNothingIsLeft) {
  const test::TempDir dir;
  auto options = folder_options(dir);
  options.corrupt = CorruptImages::kSkip;
  for (const char* name : {"cat", "dog"})
    for (int i = 0; i < 3; ++i)
      test::save(dir / ("train/" + std::string(name) + "/" + std::to_string(i) + ".png"), {1, 2});
  testing::internal::CaptureStderr();
  const auto message = test::thrown<DataError>([&] { open_image_dataset(options, Split::kTrain); });
  testing::internal::GetCapturedStderr();
  STOA_EXPECT_CONTAINS(message, "no image could be read");
}

TEST(OpenImageDataset, LooksForRelativePathsBelowStoaData) {
  const test::TempDir dir;
  auto options = folder_options(dir);
  options.path = dir.path().filename().string();
  setenv("STOA_DATA", dir.path().parent_path().c_str(), 1);
  EXPECT_EQ(open_image_dataset(options, Split::kTrain)->size(), 6);
  options.path = "nowhere";
  const auto message = test::thrown<DataError>([&] { open_image_dataset(options, Split::kTrain); });
  unsetenv("STOA_DATA");
  STOA_EXPECT_CONTAINS(message,
                       "nowhere: no such folder, nor " + (dir.path().parent_path() / "nowhere").string());
  STOA_EXPECT_CONTAINS(message, "STOA_DATA");
}

TEST(OpenImageDataset, RefusesAFileWhereAFolderIsNeeded) {
  const test::TempDir dir;
  auto options = folder_options(dir);
  options.path = (dir / "train/cat/1.png").string();
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { open_image_dataset(options, Split::kTrain); }),
                       "a file where a folder is needed");
}

TEST(OpenImageDataset, ValidatesTheOptions) {
  ImageDataOptions options;
  options.format = ImageFormat::kSynthetic;
  options.channels = 7;
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] { open_image_dataset(options, Split::kTrain); }),
                       "`data.channels` is 7");
}

TEST(OpenImageDataset, KeepsTheCifarJpegsInMemory) {
  STOA_NEEDS_TEST_DATA("cifar10/train.tar.gz");
  ImageDataOptions options;
  options.path = test::test_data("cifar10").string();
  options.classes = 10;
  options.image_size = 32;
  options.train_limit = 1000;
  options.in_memory = true;
  testing::internal::CaptureStderr();
  const auto data = open_image_dataset(options, Split::kTrain);
  testing::internal::GetCapturedStderr();
  std::vector<int> counts(10);
  for (std::int64_t i = 0; i < data->size(); ++i) ++counts.at(data->view(i)->label);
  EXPECT_EQ(counts, std::vector<int>(10, 100));
}

}  // namespace
}  // namespace stoa
