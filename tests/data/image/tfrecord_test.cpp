#include "stoa/data/image/tfrecord.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "stoa/data/image/dataset.h"
#include "support/image_files.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using test::Bytes;
using test::feature;
using test::proto;
using test::text;
using test::varint;

Bytes two_records() {
  Bytes bytes = test::tf_record(text("first"));
  test::append(bytes, test::tf_record(text("the second")));
  return bytes;
}

std::string index_refusal(const Bytes& bytes) {
  return test::thrown<DataError>([&] { index_tfrecords(bytes, "shard"); });
}

std::string example_refusal(const Bytes& bytes) {
  return test::thrown<DataError>([&] { parse_image_example(bytes, "shard, record 3"); });
}

std::unique_ptr<ImageDataset> open(const std::filesystem::path& path, std::int64_t classes,
                                   CorruptImages corrupt = CorruptImages::kRefuse,
                                   Split split = Split::kTrain) {
  ImageDataOptions options;
  options.format = ImageFormat::kTfRecord;
  options.path = path.string();
  options.classes = classes;
  options.corrupt = corrupt;
  return open_image_dataset(options, split);
}

Bytes shard(std::initializer_list<int> labels) {
  Bytes bytes;
  for (const int label : labels)
    test::append(bytes, test::tf_record(test::image_example(
                            test::plain_png(2, static_cast<std::uint8_t>(label)), label)));
  return bytes;
}

TEST(TfRecords, AreFoundAndVerified) {
  const Bytes bytes = two_records();
  const auto records = index_tfrecords(bytes, "shard");
  ASSERT_EQ(records.size(), 2u);
  const auto data = tfrecord_data(bytes, records[1], "shard, record 1");
  EXPECT_EQ(std::string(data.begin(), data.end()), "the second");
}

TEST(TfRecords, MatchAFrameFromThePublishedFormat) {
  // the checksum of "123456789" is the usual check value of CRC-32C, 0xe3069283, here masked
  const Bytes bytes = test::tf_record(text("123456789"));
  const std::uint32_t masked = ((0xe3069283u >> 15) | (0xe3069283u << 17)) + 0xa282ead8u;
  for (int i = 0; i < 4; ++i) EXPECT_EQ(bytes[bytes.size() - 4 + i], (masked >> (8 * i)) & 0xff);
}

TEST(TfRecords, RefuseTruncatedWhereverTheyAreCut) {
  const Bytes whole = two_records();
  for (std::size_t size = 1; size < whole.size(); ++size) {
    if (size == test::tf_record(text("first")).size()) continue;  // a whole record
    const auto message = index_refusal(test::cut(whole, size));
    STOA_EXPECT_CONTAINS(message, "shard: truncated within record");
    STOA_EXPECT_CONTAINS(message, "get the file again");
  }
}

TEST(TfRecords, RefuseAnAlteredByteWhereverItIs) {
  for (std::size_t i = 0; i < two_records().size(); ++i) {
    Bytes bytes = two_records();
    bytes[i] ^= 0x10;
    EXPECT_THROW(for (const auto& record
                      : index_tfrecords(bytes, "shard")) tfrecord_data(bytes, record, "shard"),
                 DataError)
        << "byte " << i;
  }
}

TEST(TfRecords, RefuseALengthThatOverflows) {
  Bytes bytes(8, 0xff);
  const std::uint32_t sum = masked_crc32c(bytes);
  for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<std::uint8_t>(sum >> (8 * i)));
  bytes.resize(40);
  STOA_EXPECT_CONTAINS(index_refusal(bytes), "truncated within record 0");
}

TEST(ImageExample, IsParsed) {
  const Bytes message = test::image_example(text("jpeg bytes"), 281);
  const auto example = parse_image_example(message, "record");
  EXPECT_EQ(std::string(example.encoded.begin(), example.encoded.end()), "jpeg bytes");
  EXPECT_EQ(example.label, 281);
}

TEST(ImageExample, MayPackItsIntegersAndKeepOtherFields) {
  Bytes features = feature("image/class/label", 3, proto(1, varint(7)));
  test::append(features, feature("image/object/bbox/xmin", 2, proto(1, Bytes(8))));
  test::append(features, feature("image/encoded", 1, proto(1, text("x"))));
  Bytes message = proto(1, features);
  test::append(message, {0x78, 0x05});                    // field 15, a varint
  test::append(message, {0x7d, 1, 2, 3, 4});              // field 15, 32 bits
  test::append(message, {0x79, 1, 2, 3, 4, 5, 6, 7, 8});  // field 15, 64 bits
  EXPECT_EQ(parse_image_example(message, "record").label, 7);
  Bytes unpacked = {0x08};
  test::append(unpacked, varint(300));
  features = feature("image/class/label", 3, unpacked);
  test::append(features, feature("image/encoded", 1, proto(1, text("x"))));
  EXPECT_EQ(parse_image_example(proto(1, features), "record").label, 300);
}

TEST(ImageExample, ThatLacksAFeatureIsRefused) {
  const Bytes no_label = proto(1, feature("image/encoded", 1, proto(1, text("x"))));
  STOA_EXPECT_CONTAINS(example_refusal(no_label), "shard, record 3: the tf.Example has no image/class/label");
  const Bytes no_image = proto(1, feature("image/class/label", 3, proto(1, varint(7))));
  STOA_EXPECT_CONTAINS(example_refusal(no_image), "has no image/encoded");
  STOA_EXPECT_CONTAINS(example_refusal({}), "make the file again");
}

TEST(ImageExample, ThatIsDamagedIsRefused) {
  const Bytes whole = test::image_example(text("jpeg bytes"), 281);
  for (std::size_t size = 0; size < whole.size(); ++size)
    STOA_EXPECT_CONTAINS(example_refusal(test::cut(whole, size)), "shard, record 3");
  STOA_EXPECT_CONTAINS(example_refusal({0x0b}), "damaged protobuf");           // a group
  STOA_EXPECT_CONTAINS(example_refusal(Bytes(12, 0xff)), "damaged protobuf");  // an endless number
}

TEST(OpenTfRecord, ReadsAllShardsAndLowersLabelsByOne) {
  const test::TempDir dir;
  test::save(dir / "train-00000-of-00002", shard({1, 3}));
  test::save(dir / "train-00001-of-00002", shard({2}));
  const auto data = open(dir.path(), 3);
  ASSERT_EQ(data->size(), 3);
  EXPECT_EQ(data->get(1).label, 2);
  EXPECT_EQ(data->get(2).label, 1);
  EXPECT_EQ(data->get(2).image.pixels[0], 2);
  STOA_EXPECT_CONTAINS(data->name(2), "train-00001-of-00002, record 0");
}

TEST(OpenTfRecord, KeepsLabelsFor1001Classes) {
  const test::TempDir dir;
  test::save(dir / "validation-00000-of-00001", shard({1, 3}));
  EXPECT_EQ(open(dir.path(), 1001, CorruptImages::kRefuse, Split::kTest)->get(1).label, 3);
}

TEST(OpenTfRecord, NamesALabelOutOfRange) {
  const test::TempDir dir;
  test::save(dir / "train-00000-of-00001", shard({1, 4}));
  for (const auto corrupt : {CorruptImages::kRefuse, CorruptImages::kSkip}) {
    const auto message = test::thrown<DataError>([&] { open(dir.path(), 3, corrupt)->get(1); });
    STOA_EXPECT_CONTAINS(
        message,
        "train-00000-of-00001, record 1: image/class/label is 4, but data.classes = 3 allows 1 to 3");
  }
}

TEST(OpenTfRecord, NamesAnAlteredRecordOrSkipsIt) {
  const test::TempDir dir;
  Bytes bytes = shard({1, 2, 3});
  bytes[shard({1}).size() + 40] ^= 1;
  test::save(dir / "train-00000-of-00001", bytes);
  const auto message = test::thrown<DataError>([&] { open(dir.path(), 3)->get(1); });
  STOA_EXPECT_CONTAINS(message, "train-00000-of-00001, record 1: the checksum of the data is wrong");
  testing::internal::CaptureStderr();
  const auto rest = open(dir.path(), 3, CorruptImages::kSkip);
  const std::string warning = testing::internal::GetCapturedStderr();
  EXPECT_EQ(rest->size(), 2);
  EXPECT_EQ(rest->get(1).label, 2);
  STOA_EXPECT_CONTAINS(warning, "train-00000-of-00001, record 1: the checksum");
}

TEST(OpenTfRecord, NamesMissingShards) {
  const test::TempDir dir;
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { open(dir.path(), 3); }), "no files train-*-of-*");
  test::save(dir / "train-00000-of-00002", shard({1}));
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { open(dir.path(), 3); }),
                       "1 of 2 files train-*-of-00002 are there; get the missing ones");
}

TEST(OpenTfRecord, NamesATruncatedShard) {
  const test::TempDir dir;
  const Bytes bytes = shard({1, 2});
  test::save(dir / "train-00000-of-00001", test::cut(bytes, bytes.size() - 5));
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { open(dir.path(), 3); }),
                       "train-00000-of-00001: truncated within record 1");
}

}  // namespace
}  // namespace stoa
