#include <gtest/gtest.h>

#include <algorithm>

#include "stoa/base/errors.h"
#include "stoa/data/image/dataset.h"
#include "support/image_files.h"
#include "support/temp_dir.h"
#include "support/test_data.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using test::Bytes;
namespace fs = std::filesystem;

std::unique_ptr<ImageDataset> open(const fs::path& path, std::int64_t classes, Split split = Split::kTrain) {
  ImageDataOptions options;
  options.path = path.string();
  options.classes = classes;
  return open_image_dataset(options, split);
}

std::string refusal(const fs::path& path, std::int64_t classes, Split split = Split::kTrain) {
  return test::thrown<DataError>([&] { open(path, classes, split); });
}

/// Three images of two classes; their colour tells them apart.
void fill(const fs::path& split) {
  test::save(split / "dog/2.png", test::plain_png(2, 22));
  test::save(split / "dog/1.JPG", test::jpeg(2, 2, Bytes(12, 21)));
  test::save(split / "cat/1.jpeg", test::jpeg(2, 2, Bytes(12, 11)));
}

Bytes packed() {
  return test::tar({{"train/dog/2.png", test::plain_png(2, 22)},
                    {"train/cat/._1.jpeg", test::text("left by a file manager")},
                    {"train/cat/1.jpeg", test::plain_png(2, 11)},
                    {"train/readme.txt", test::text("x")}});
}

std::vector<std::pair<int, int>> colors_and_labels(const ImageDataset& data) {
  std::vector<std::pair<int, int>> found;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    const auto sample = data.get(i);
    found.emplace_back(sample.image.pixels.at(0), static_cast<int>(sample.label));
  }
  return found;
}

using Found = std::vector<std::pair<int, int>>;

TEST(OpenFolder, LabelsByTheSortedNamesOfTheClassesAndTakesThemInTurn) {
  const test::TempDir dir;
  fill(dir / "train");
  const auto data = open(dir.path(), 2);
  EXPECT_EQ(data->class_names(), (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(colors_and_labels(*data), (Found{{11, 0}, {21, 1}, {22, 1}}));
  STOA_EXPECT_CONTAINS(data->name(2), "train/dog/2.png");
}

TEST(OpenFolder, PassesOverOtherFiles) {
  const test::TempDir dir;
  fill(dir / "train");
  test::save(dir / "train/dog/notes.txt", test::text("x"));
  test::save(dir / "train/dog/._1.JPG", test::text("x"));
  test::save(dir / "train/.cache/1.png", test::plain_png(1, 1));
  test::save(dir / "train/list.csv", test::text("x"));
  EXPECT_EQ(open(dir.path(), 2)->size(), 3);
}

TEST(OpenFolder, FindsTheTestSplitByAnyOfItsNames) {
  for (const char* name : {"test", "val", "validation"}) {
    const test::TempDir dir;
    fill(dir / name);
    EXPECT_EQ(open(dir.path(), 2, Split::kTest)->size(), 3);
  }
}

TEST(OpenFolder, ReadsTarPlainAndGzipped) {
  for (const char* name : {"train.tar", "train.tar.gz", "train.tgz"}) {
    const test::TempDir dir;
    test::save(dir / name, std::string(name) == "train.tar" ? packed() : test::gzip(packed()));
    const auto data = open(dir.path(), 2);
    EXPECT_EQ(colors_and_labels(*data), (Found{{11, 0}, {22, 1}}));
    STOA_EXPECT_CONTAINS(data->name(0), std::string(name) + ":train/cat/1.jpeg");
  }
}

TEST(OpenFolder, NamesAMissingSplit) {
  const test::TempDir dir;
  const auto message = refusal(dir.path(), 2, Split::kTest);
  STOA_EXPECT_CONTAINS(message, dir.path().string() + ": no test, val or validation");
  STOA_EXPECT_CONTAINS(message, "SPLIT/CLASS/*.jpg");
}

TEST(OpenFolder, NamesAnEmptyFolder) {
  const test::TempDir dir;
  fs::create_directories(dir / "train/cat");
  const auto message = refusal(dir.path(), 1);
  STOA_EXPECT_CONTAINS(message, (dir / "train").string() + ": no images");
  STOA_EXPECT_CONTAINS(message, "correct data.path");
}

TEST(OpenFolder, NamesAnotherClassCount) {
  const test::TempDir dir;
  fill(dir / "train");
  STOA_EXPECT_CONTAINS(refusal(dir.path(), 10),
                       (dir / "train").string() + ": 2 classes, but data.classes = 10; set data.classes = 2");
}

TEST(OpenFolder, NamesATestClassThatTrainingDoesNotHave) {
  const test::TempDir dir;
  fill(dir / "train");
  test::save(dir / "test/cat/1.png", test::plain_png(1, 1));
  test::save(dir / "test/dogs/1.png", test::plain_png(1, 1));
  const auto message = refusal(dir.path(), 2, Split::kTest);
  STOA_EXPECT_CONTAINS(message, (dir / "test").string() + ": class dogs is not among the training classes");
  STOA_EXPECT_CONTAINS(message, "`dog`");
}

TEST(OpenFolder, NamesADamagedImageWhenItIsRead) {
  const test::TempDir dir;
  fill(dir / "train");
  test::save(dir / "train/dog/2.png", test::cut(test::plain_png(2, 22), 50));
  const auto data = open(dir.path(), 2);
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { data->get(2); }),
                       (dir / "train/dog/2.png").string() + ": truncated or damaged PNG");
}

TEST(OpenFolder, NamesATruncatedArchive) {
  const test::TempDir dir;
  test::save(dir / "train.tar", test::cut(packed(), 1700));
  STOA_EXPECT_CONTAINS(refusal(dir.path(), 2), "train.tar: damaged or truncated tar archive");
  fs::remove(dir / "train.tar");
  test::save(dir / "train.tar.gz", test::cut(test::gzip(packed()), 100));
  STOA_EXPECT_CONTAINS(refusal(dir.path(), 2), "train.tar.gz");
}

TEST(OpenFolder, ReadsCifarsArchiveAsItsBinaryFileHasIt) {
  STOA_NEEDS_TEST_DATA("cifar10/test.tar.gz");
  const test::TempDir dir;
  fs::copy_file(test::test_data("cifar10/test.tar.gz"), dir / "test.tar.gz");
  const auto jpegs = open(dir.path(), 10, Split::kTest);
  EXPECT_EQ(jpegs->size(), 10'000);
  EXPECT_EQ(jpegs->class_names().at(9), "truck");
  ImageDataOptions options;
  options.format = ImageFormat::kCifar10;
  options.path = test::test_data("cifar10").string();
  options.classes = 10;
  const auto binary = open_image_dataset(options, Split::kTest);
  // both take the classes in turn, and the binary file holds the first images of each
  std::int64_t same = 0;
  for (std::int64_t i = 0; i < 200; ++i) {
    const auto a = jpegs->get(i), b = binary->get(i);
    EXPECT_EQ(a.label, b.label);
    EXPECT_EQ(a.image.channels, 3);
    same += a.image.pixels == b.image.pixels;
  }
  EXPECT_EQ(same, 200);
}

}  // namespace
}  // namespace stoa
