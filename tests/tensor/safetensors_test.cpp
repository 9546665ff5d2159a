#include "stoa/tensor/safetensors.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <string>

#include "stoa/base/checksum.h"
#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/tensor/safetensors_stream.h"
#include "support/private_memory.h"
#include "support/temp_dir.h"
#include "support/tensor_meter.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using test::TempDir;
using test::thrown;

TensorFile small_file() {
  return {{{"weight", at::arange(6, at::kFloat).reshape({2, 3})}, {"bias", at::arange(3, at::kDouble)}},
          {{"made by", "a test"}}};
}

std::span<const std::uint8_t> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

TEST(Safetensors, EveryTypeComesBackAsItWas) {
  const TempDir dir;
  TensorFile file;
  for (const auto type : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort,
                          at::kChar, at::kByte, at::kBool})
    file.tensors[c10::toString(type)] = at::arange(-3, 4).to(type);
  save_safetensors(dir / "a.safetensors", file);
  const auto read = load_safetensors(dir / "a.safetensors");
  ASSERT_EQ(read.tensors.size(), file.tensors.size());
  for (const auto& [name, tensor] : file.tensors) {
    EXPECT_EQ(read.tensors.at(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(read.tensors.at(name), tensor)) << name;
  }
}

TEST(Safetensors, ShapesAndMetadataComeBack) {
  const TempDir dir;
  auto file = small_file();
  file.tensors["scalar"] = at::full({}, 2.5);
  file.tensors["empty"] = at::empty({0, 4});
  save_safetensors(dir / "a.safetensors", file);
  const auto read = load_safetensors(dir / "a.safetensors");
  for (const auto& [name, tensor] : file.tensors)
    EXPECT_EQ(read.tensors.at(name).sizes(), tensor.sizes()) << name;
  EXPECT_EQ(read.metadata, file.metadata);
}

TEST(Safetensors, MappedTensorsAreTheSameAndOutliveTheirFile) {
  const TempDir dir;
  auto file = small_file();
  file.tensors["a byte that moves what follows"] = at::full({1}, 7, at::kByte);
  file.tensors["empty"] = at::empty({0, 4});
  save_safetensors(dir / "a.safetensors", file);
  const auto mapped = map_safetensors(dir / "a.safetensors");
  std::filesystem::remove(dir / "a.safetensors");
  ASSERT_EQ(mapped.tensors.size(), file.tensors.size());
  for (const auto& [name, tensor] : file.tensors)
    EXPECT_TRUE(at::equal(mapped.tensors.at(name), tensor)) << name;
}

TEST(Safetensors, MappedTensorsTakeNoMemoryOfTheirOwn) {
  constexpr std::int64_t kBytes = 64 << 20;
  const TempDir dir;
  save_safetensors(dir / "a.safetensors", {{{"x", at::full({kBytes / 4}, 1.5F)}}, {}});
  const auto before = test::private_memory();
  const auto mapped = map_safetensors(dir / "a.safetensors");
  EXPECT_EQ(mapped.tensors.at("x").sum().item<double>(), 1.5 * kBytes / 4);
  EXPECT_LT(test::private_memory(), before + kBytes / 4);
  const auto copied = load_safetensors(dir / "a.safetensors");
  EXPECT_GT(test::private_memory(), before + kBytes / 2) << "the measure sees copies";
}

TEST(Safetensors, StridedTensorsAreWrittenInRowOrder) {
  const TempDir dir;
  const auto x = at::arange(6, at::kFloat).reshape({2, 3});
  save_safetensors(dir / "a.safetensors", {{{"x", x.t()}}, {}});
  EXPECT_TRUE(at::equal(load_safetensors(dir / "a.safetensors").tensors.at("x"), x.t()));
}

TEST(Safetensors, ReturnsTheChecksumOfTheFile) {
  const TempDir dir;
  const auto checksum = save_safetensors(dir / "a.safetensors", small_file());
  EXPECT_EQ(checksum, crc32(as_bytes(read_file(dir / "a.safetensors"))));
}

TEST(Safetensors, DataBeginsAtAMultipleOfEight) {
  const TempDir dir;
  for (const std::string name : {"a", "ab", "abc", "abcd", "abcde"}) {
    save_safetensors(dir / "a.safetensors", {{{name, at::zeros({1})}}, {}});
    const auto content = read_file(dir / "a.safetensors");
    std::uint64_t header = 0;
    std::memcpy(&header, content.data(), sizeof header);
    EXPECT_EQ(header % 8, 0U) << name;
    EXPECT_EQ(content.size(), 8 + header + 4) << name;
  }
}

TEST(Safetensors, SharedStorageIsRefusedWithBothNames) {
  const TempDir dir;
  const auto x = at::ones({2, 3});
  const auto message = thrown<Error>([&] {
    save_safetensors(dir / "a.safetensors", {{{"first", x}, {"other", x.view({3, 2})}}, {}});
  });
  STOA_EXPECT_CONTAINS(message, "`first` and `other` share storage");
  EXPECT_FALSE(std::filesystem::exists(dir / "a.safetensors"));
}

TEST(Safetensors, ATypeTheFormatLacksIsRefused) {
  const TempDir dir;
  STOA_EXPECT_CONTAINS(
      thrown<Error>([&] {
        save_safetensors(dir / "a.safetensors", {{{"wave", at::zeros({2}, at::kComplexDouble)}}, {}});
      }),
      "`wave`");
}

TEST(Safetensors, AFileOfAnUnreadableTypeIsRefusedByName) {
  const TempDir dir;
  std::string header = R"({"x":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}})";
  const std::uint64_t size = header.size();
  write_file_atomically(dir / "a.safetensors",
                        std::string(reinterpret_cast<const char*>(&size), 8) + header + "1");
  const auto message = thrown<DataError>([&] { load_safetensors(dir / "a.safetensors"); });
  STOA_EXPECT_CONTAINS(message, "a.safetensors");
  STOA_EXPECT_CONTAINS(message, "`x` is of type F8_E4M3");
}

TEST(Safetensors, EveryTruncationIsRefusedWithTheFilesName) {
  const TempDir dir;
  save_safetensors(dir / "a.safetensors", small_file());
  const auto content = read_file(dir / "a.safetensors");
  for (std::size_t size = 0; size < content.size(); ++size) {
    write_file_atomically(dir / "cut.safetensors", content.substr(0, size));
    STOA_EXPECT_CONTAINS(thrown<DataError>([&] { load_safetensors(dir / "cut.safetensors"); }),
                         "cut.safetensors");
  }
}

TEST(Safetensors, AnAlteredFileHasAnotherChecksumOrIsRefused) {
  const TempDir dir;
  const auto checksum = save_safetensors(dir / "a.safetensors", small_file());
  auto content = read_file(dir / "a.safetensors");
  content.back() ^= 1;
  EXPECT_NE(crc32(as_bytes(content)), checksum);
  content = read_file(dir / "a.safetensors");
  content.replace(content.find("[2,3]"), 5, "[2,4]");
  write_file_atomically(dir / "a.safetensors", content);
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { load_safetensors(dir / "a.safetensors"); }), "weight");
}

TEST(Safetensors, AFailedWriteLeavesTheOldFile) {
  const TempDir dir;
  save_safetensors(dir / "a.safetensors", small_file());
  const auto before = read_file(dir / "a.safetensors");
  const auto x = at::ones({2});
  EXPECT_THROW(save_safetensors(dir / "a.safetensors", {{{"a", x}, {"b", x}}, {}}), Error);
  EXPECT_EQ(read_file(dir / "a.safetensors"), before);
}

/// The same tensors as small_file()'s, brought in pieces of one row when they are asked for.
StreamedTensors small_stream() {
  StreamedTensors sources;
  for (const auto& [name, tensor] : small_file().tensors) {
    const auto bring = [whole = tensor](const PutElements& put) {
      for (const auto& row : whole.unbind(0)) put(row);
    };
    sources.emplace(name, StreamedTensor{tensor.scalar_type(), tensor.sizes().vec(), {}, bring});
  }
  return sources;
}

TEST(StreamedSafetensors, AreTheSameFile) {
  const TempDir dir;
  const auto whole = save_safetensors(dir / "a.safetensors", small_file());
  const auto streamed = stream_safetensors(dir / "b.safetensors", small_stream(), small_file().metadata);
  EXPECT_EQ(read_file(dir / "a.safetensors"), read_file(dir / "b.safetensors"));
  EXPECT_EQ(whole, streamed);
}

TEST(StreamedSafetensors, AreInMemoryOneAfterTheOther) {
  constexpr std::int64_t kEach = 1 << 16, kBytes = kEach * 4;
  const TempDir dir;
  StreamedTensors sources;
  for (int i = 0; i < 20; ++i)
    sources.emplace(format("layer.{}", i), StreamedTensor{at::kFloat, {kEach}, {}, [i](const auto& put) {
                                                            put(at::full({kEach}, i, at::kFloat));
                                                          }});
  auto& meter = test::TensorMeter::get();
  meter.start();
  stream_safetensors(dir / "a.safetensors", sources);
  EXPECT_GE(meter.peak(), kBytes);
  EXPECT_LT(meter.peak(), 1.5 * kBytes);
  for (const auto& [name, tensor] : load_safetensors(dir / "a.safetensors").tensors)
    EXPECT_TRUE(tensor.eq(std::stoi(name.substr(6))).all().item<bool>()) << name;
}

TEST(StreamedSafetensors, WhatDoesNotFitItsHeaderOrDoesNotComeLeavesTheOldFile) {
  const TempDir dir;
  const auto file = dir / "a.safetensors";
  save_safetensors(file, small_file());
  const auto before = read_file(file);
  const auto message = [&](const at::Tensor& comes) {
    auto sources = small_stream();
    sources.at("weight").bring = [&](const PutElements& put) { put(comes); };
    return thrown<Error>([&] { stream_safetensors(file, sources); });
  };
  STOA_EXPECT_CONTAINS(message(at::ones({5})), "tensor `weight` was to have 24 bytes, but 20 came");
  STOA_EXPECT_CONTAINS(message(at::ones({7})),
                       "`weight` was to have 24 bytes of Float, but 28 of Float came");
  STOA_EXPECT_CONTAINS(message(at::ones({3}, at::kDouble)), "but 24 of Double came");
  auto sources = small_stream();
  sources.at("weight").bring = [](const PutElements&) { throw DataError("it is elsewhere"); };
  EXPECT_EQ(thrown<DataError>([&] { stream_safetensors(file, sources); }), "it is elsewhere");
  EXPECT_EQ(read_file(file), before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
}

TEST(Safetensors, AMissingFileIsAnIoError) {
  EXPECT_THROW(load_safetensors("/nowhere/a.safetensors"), IoError);
}

TEST(Safetensors, PythonReadsTheFile) {
  const auto python = [](const std::string& code) {
    return std::system(format("PYTHONPATH=\"{}/.deps/python:$PYTHONPATH\" python3 -c '{}' > /dev/null 2>&1",
                              STOA_SOURCE_DIR, code)
                           .c_str());
  };
  if (python("import safetensors.numpy") != 0) GTEST_SKIP() << "python3 cannot import safetensors and numpy";
  const TempDir dir;
  auto file = small_file();
  file.tensors["flag"] = at::tensor({1, 0, 1}, at::kLong).to(at::kBool);
  save_safetensors(dir / "a.safetensors", file);
  const auto code = format(R"(
import safetensors, safetensors.numpy
file = safetensors.numpy.load_file("{0}")
assert file["weight"].tolist() == [[0, 1, 2], [3, 4, 5]] and str(file["weight"].dtype) == "float32"
assert file["bias"].tolist() == [0, 1, 2] and str(file["bias"].dtype) == "float64"
assert file["flag"].tolist() == [True, False, True]
assert safetensors.safe_open("{0}", "np").metadata() == dict([("made by", "a test")])
)",
                           (dir / "a.safetensors").string());
  EXPECT_EQ(python(code), 0);
}

}  // namespace
}  // namespace stoa
