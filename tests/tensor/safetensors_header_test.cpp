#include "stoa/tensor/safetensors_header.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa {
namespace {

std::vector<std::uint8_t> file(const std::string& header, std::size_t data, std::uint64_t length = 0) {
  if (length == 0) length = header.size();
  std::vector<std::uint8_t> bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<std::uint8_t>(length >> (8 * i)));
  bytes.insert(bytes.end(), header.begin(), header.end());
  bytes.resize(bytes.size() + data);
  return bytes;
}

std::string refusal(const std::string& header, std::size_t data) {
  const auto message =
      test::thrown<DataError>([&] { parse_safetensors_header(file(header, data), "m.safetensors"); });
  STOA_EXPECT_CONTAINS(message, "m.safetensors: ");
  STOA_EXPECT_CONTAINS(message, "use another copy");
  return message;
}

/// One tensor `w` of these parts.
std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"w":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

TEST(SafetensorsHeader, IsParsed) {
  const std::string text =
      R"({"__metadata__":{"step":"7"},"b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},)"
      R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"e":{"dtype":"I64","shape":[0,5],"data_offsets":[24,24]}}   )";
  const auto header = parse_safetensors_header(file(text, 26), "m.safetensors");
  EXPECT_EQ(header.data_offset, 8 + text.size());
  EXPECT_EQ(header.metadata.at("step"), "7");
  EXPECT_EQ(header.entries.size(), 3u);
  EXPECT_EQ(header.entries.at("a").shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(header.entries.at("b").dtype, "BF16");
  EXPECT_EQ(header.entries.at("b").begin, 24u);
  EXPECT_EQ(header.entries.at("b").end, 26u);
}

TEST(SafetensorsHeader, OfAFileWithoutTensorsIsParsed) {
  EXPECT_TRUE(parse_safetensors_header(file("{}", 0), "m.safetensors").entries.empty());
}

TEST(SafetensorsHeader, IsRefusedWhereverTheFileIsCut) {
  const auto whole = file(tensor("\"U8\"", "[4]", "[0,4]"), 4);
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_THROW(parse_safetensors_header(std::span(whole).first(size), "m.safetensors"), DataError) << size;
}

TEST(SafetensorsHeader, OfAnImpossibleLengthIsRefused) {
  const auto read = [](std::uint64_t length) {
    return test::thrown<DataError>([&] { parse_safetensors_header(file("{}", 0, length), "m.safetensors"); });
  };
  STOA_EXPECT_CONTAINS(read(100'000'001), "its header would have 100000001 bytes");
  STOA_EXPECT_CONTAINS(read(~0ull), "no safetensors file");
  STOA_EXPECT_CONTAINS(read(3), "truncated");
}

TEST(SafetensorsHeader, ThatIsNoJsonObjectIsRefused) {
  STOA_EXPECT_CONTAINS(refusal("{\"w\":", 0), "not valid JSON at byte");
  STOA_EXPECT_CONTAINS(refusal("[1]", 0), "no JSON object");
  STOA_EXPECT_CONTAINS(refusal(R"({"w":1e999})", 0), "out of range");
  STOA_EXPECT_CONTAINS(refusal("{\"w\":{\"x\":[[[[1]]]]}}", 0), "nested too deeply");
  STOA_EXPECT_CONTAINS(refusal("{\"\xff\":1}", 0), "not valid JSON");
}

TEST(SafetensorsHeader, WithANameTwiceIsRefused) {
  const std::string entry = R"("w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  STOA_EXPECT_CONTAINS(refusal("{" + entry + "," + entry + "}", 1), "tensor \"w\": is there twice");
}

TEST(SafetensorsHeader, MayHaveATensorNamedAsAPart) {
  const std::string text = R"({"dtype":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  EXPECT_EQ(parse_safetensors_header(file(text, 1), "m").entries.count("dtype"), 1u);
}

TEST(SafetensorsHeader, WithAWrongPartIsRefused) {
  STOA_EXPECT_CONTAINS(refusal(R"({"w":3})", 0), "tensor \"w\": has no dtype");
  STOA_EXPECT_CONTAINS(refusal(R"({"w":{"dtype":"U8","shape":[1]}})", 1),
                       "tensor \"w\": has no data_offsets");
  STOA_EXPECT_CONTAINS(refusal(tensor("\"F7\"", "[1]", "[0,1]"), 1), "tensor \"w\": has an unknown dtype");
  STOA_EXPECT_CONTAINS(refusal(tensor("8", "[1]", "[0,1]"), 1), "unknown dtype");
  STOA_EXPECT_CONTAINS(refusal(tensor("\"U8\"", "1", "[0,1]"), 1), "shape that is no list");
  STOA_EXPECT_CONTAINS(refusal(tensor("\"U8\"", "[-1]", "[0,1]"), 1), "shape that are not whole numbers");
  STOA_EXPECT_CONTAINS(refusal(tensor("\"U8\"", "[1.0]", "[0,1]"), 1), "shape that are not whole numbers");
  STOA_EXPECT_CONTAINS(refusal(tensor("\"U8\"", "[1]", "[0]"), 1), "not two numbers");
  STOA_EXPECT_CONTAINS(refusal(tensor("\"U8\"", "[1]", "[\"0\",1]"), 1),
                       "data_offsets that are not whole numbers");
  STOA_EXPECT_CONTAINS(refusal(R"({"__metadata__":{"a":1}})", 0), "__metadata__");
  STOA_EXPECT_CONTAINS(refusal(R"({"__metadata__":[]})", 0), "__metadata__ is no table");
}

TEST(SafetensorsHeader, WhoseBytesDoNotFitTheShapeIsRefused) {
  STOA_EXPECT_CONTAINS(refusal(tensor("\"F32\"", "[2,3]", "[0,20]"), 20),
                       "data_offsets 0 to 20 where its shape needs 24 bytes");
  STOA_EXPECT_CONTAINS(refusal(tensor("\"U8\"", "[2]", "[4,2]"), 4), "data_offsets 4 to 2");
}

TEST(SafetensorsHeader, WhoseShapeOverflowsIsRefused) {
  STOA_EXPECT_CONTAINS(refusal(tensor("\"U8\"", "[4294967296,4294967296]", "[0,0]"), 0), "overflows");
  STOA_EXPECT_CONTAINS(refusal(tensor("\"F64\"", "[2305843009213693952]", "[0,0]"), 0), "overflows");
  STOA_EXPECT_CONTAINS(refusal(tensor("\"U8\"", "[18446744073709551615]", "[0,0]"), 0),
                       "whole numbers from 0 to 2^63 - 1");
}

TEST(SafetensorsHeader, WithGapsOverlapsOrRestIsRefused) {
  const auto two = [](int begin) {
    const auto at = std::to_string(begin), end = std::to_string(begin + 2);
    return R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[)" +
           at + "," + end + "]}}";
  };
  EXPECT_EQ(parse_safetensors_header(file(two(2), 4), "m").entries.size(), 2u);
  STOA_EXPECT_CONTAINS(refusal(two(3), 5),
                       "tensor \"b\": begins at 3 of the data, but the one before it ends at 2");
  STOA_EXPECT_CONTAINS(refusal(two(1), 3), "tensor \"b\": begins at 1");
  STOA_EXPECT_CONTAINS(refusal(two(2), 3),
                       "tensor \"b\": ends at 4 of the data, but the file has 3 bytes of it");
  STOA_EXPECT_CONTAINS(refusal(two(2), 5), "5 bytes of data, but its tensors have 4");
}

}  // namespace
}  // namespace stoa
