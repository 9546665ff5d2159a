#include "stoa/data/image/idx.h"

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

IdxArray parse(const Bytes& bytes) {
  return parse_idx(bytes, "file");
}
std::string refusal(const Bytes& bytes) {
  return test::thrown<DataError>([&] { parse(bytes); });
}

/// A folder with two images of 2 x 3 pixels and their labels, as training data.
struct Folder {
  test::TempDir dir;
  Bytes images = test::idx({2, 2, 3}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  Bytes labels = test::idx({2}, {1, 0});

  std::unique_ptr<ImageDataset> open(std::int64_t classes = 2, Split split = Split::kTrain) const {
    test::save(dir / "train-images-idx3-ubyte", images);
    test::save(dir / "train-labels-idx1-ubyte", labels);
    ImageDataOptions options;
    options.format = ImageFormat::kIdx;
    options.path = dir.path().string();
    options.classes = classes;
    return open_image_dataset(options, split);
  }
  std::string refusal(std::int64_t classes = 2, Split split = Split::kTrain) const {
    return test::thrown<DataError>([&] { open(classes, split); });
  }
};

TEST(ParseIdx, ReadsShapeAndValues) {
  const Bytes bytes = test::idx({2, 1, 3}, {9, 8, 7, 6, 5, 4});
  const IdxArray array = parse(bytes);
  EXPECT_EQ(array.shape, (std::vector<std::int64_t>{2, 1, 3}));
  EXPECT_EQ(Bytes(array.values.begin(), array.values.end()), (Bytes{9, 8, 7, 6, 5, 4}));
}

TEST(ParseIdx, RefusesOtherFiles) {
  STOA_EXPECT_CONTAINS(refusal({}), "file: not an IDX file");
  STOA_EXPECT_CONTAINS(refusal(test::text("PK\3\4....")), "get the file again");
  STOA_EXPECT_CONTAINS(refusal({0, 0, 0x0d, 1, 0, 0, 0, 0}), "not an IDX file of bytes");  // floats
}

TEST(ParseIdx, RefusesTruncatedWhereverItIsCut) {
  const Bytes whole = test::idx({2, 1, 3}, {9, 8, 7, 6, 5, 4});
  for (std::size_t size = 4; size < whole.size(); ++size) {
    const auto message = refusal(test::cut(whole, size));
    STOA_EXPECT_CONTAINS(message, "file: truncated");
    STOA_EXPECT_CONTAINS(message, "get the file again");
  }
}

TEST(ParseIdx, RefusesTooLong) {
  STOA_EXPECT_CONTAINS(refusal(test::idx({2}, {1, 2, 3})),
                       "too long, 3 bytes of values where the header's sizes need 2");
}

TEST(ParseIdx, RefusesSizesThatOverflow) {
  STOA_EXPECT_CONTAINS(refusal(test::idx({0x80000000, 0x80000000, 4}, {})), "truncated");
  STOA_EXPECT_CONTAINS(refusal(test::idx({0x80000000, 0x80000000, 0x80000000, 2}, {1})), "truncated");
}

TEST(OpenIdx, ReadsImagesAndLabels) {
  const Folder folder;
  const auto data = folder.open();
  EXPECT_EQ(data->size(), 2);
  EXPECT_EQ(data->get(0).label, 1);
  EXPECT_EQ(data->get(1).image.pixels, (Bytes{7, 8, 9, 10, 11, 12}));
  EXPECT_EQ(data->get(1).image.height, 2);
  EXPECT_EQ(data->get(1).image.channels, 1);
  STOA_EXPECT_CONTAINS(data->name(1), "train-images-idx3-ubyte, record 1");
}

TEST(OpenIdx, ShowsImagesWithoutACopy) {
  const Folder folder;
  const auto data = folder.open();
  const auto view = data->view(1);
  ASSERT_TRUE(view.has_value());
  EXPECT_EQ(view->pixels[0], 7);
  EXPECT_EQ(view->label, 0);
  EXPECT_EQ(data->view(1)->pixels, view->pixels);
}

TEST(OpenIdx, ReadsGzip) {
  Folder folder;
  test::save(folder.dir / "t10k-images-idx3-ubyte.gz", test::gzip(folder.images));
  test::save(folder.dir / "t10k-labels-idx1-ubyte.gz", test::gzip(folder.labels));
  EXPECT_EQ(folder.open(2, Split::kTest)->get(1).image.pixels[5], 12);
}

TEST(OpenIdx, RefusesTruncatedGzip) {
  const Folder folder;
  test::save(folder.dir / "t10k-images-idx3-ubyte.gz", test::cut(test::gzip(folder.images), 20));
  test::save(folder.dir / "t10k-labels-idx1-ubyte.gz", test::gzip(folder.labels));
  const auto message = folder.refusal(2, Split::kTest);
  STOA_EXPECT_CONTAINS(message, "t10k-images-idx3-ubyte.gz");
  STOA_EXPECT_CONTAINS(message, "truncated");
}

TEST(OpenIdx, NamesALabelOutOfRange) {
  Folder folder;
  folder.labels.back() = 5;
  const auto message = folder.refusal();
  STOA_EXPECT_CONTAINS(message,
                       "train-labels-idx1-ubyte, record 1: label 5, but data.classes = 2 allows 0 to 1");
  STOA_EXPECT_CONTAINS(message, "set data.classes");
}

TEST(OpenIdx, NamesAnotherClassCount) {
  const auto message = Folder().refusal(10);
  STOA_EXPECT_CONTAINS(message, "train-labels-idx1-ubyte: 2 classes, but data.classes = 10");
  STOA_EXPECT_CONTAINS(message, "set data.classes = 2");
}

TEST(OpenIdx, NamesMissingFiles) {
  const auto message = Folder().refusal(2, Split::kTest);
  STOA_EXPECT_CONTAINS(message, "t10k-images-idx3-ubyte: not found, nor the same with .gz");
  STOA_EXPECT_CONTAINS(message, "data.path");
}

TEST(OpenIdx, NamesDifferentCounts) {
  Folder folder;
  folder.labels = test::idx({3}, {1, 0, 1});
  STOA_EXPECT_CONTAINS(folder.refusal(), "train-images-idx3-ubyte: 2 images, but");
}

TEST(OpenIdx, NamesExchangedFiles) {
  Folder folder;
  std::swap(folder.images, folder.labels);
  STOA_EXPECT_CONTAINS(
      folder.refusal(),
      "images-idx3-ubyte: 1 dimensions where 3 are needed; are the files of images and labels exchanged?");
}

TEST(OpenIdx, RefusesNoImages) {
  Folder folder;
  folder.images = test::idx({0, 2, 3}, {});
  folder.labels = test::idx({0}, {});
  STOA_EXPECT_CONTAINS(folder.refusal(), "no images");
}

TEST(OpenIdx, ReadsFashionMnist) {
  STOA_NEEDS_TEST_DATA("fashion-mnist");
  ImageDataOptions options;
  options.format = ImageFormat::kIdx;
  options.path = test::test_data("fashion-mnist").string();
  options.classes = 10;
  const auto data = open_image_dataset(options, Split::kTest);
  EXPECT_EQ(data->size(), 10'000);
  std::vector<int> counts(10);
  for (std::int64_t i = 0; i < data->size(); ++i) ++counts.at(data->view(i)->label);
  EXPECT_EQ(counts, std::vector<int>(10, 1000));
  EXPECT_EQ(data->get(0).label, 9);  // an ankle boot comes first
  EXPECT_EQ(data->get(0).image.width, 28);
}

}  // namespace
}  // namespace stoa
