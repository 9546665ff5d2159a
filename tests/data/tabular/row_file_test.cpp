#include "stoa/data/tabular/row_file.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

RowColumns made_rows(std::size_t rows) {
  RowColumns columns{{{}, {}}, {{}}, {}};
  for (std::size_t i = 0; i < rows; ++i) {
    columns.ids[0].push_back(static_cast<std::uint32_t>(i % 7));
    columns.ids[1].push_back(static_cast<std::uint32_t>(i));
    columns.numerics[0].push_back(static_cast<float>(i) / 2);
    columns.labels.push_back(i % 3 == 0);
  }
  return columns;
}

const std::vector<std::int64_t> kSizes = {7, 100000};

void check_all(std::span<const std::uint8_t> bytes, const std::vector<std::int64_t>& sizes = kSizes) {
  const RowFile file = parse_row_file(bytes, "rows.bin");
  for (std::size_t block = 0; block < file.blocks.size(); ++block)
    check_block(file, block, sizes, "rows.bin");
}

std::vector<std::uint8_t> file_of(const RowColumns& columns) {
  const TempDir folder;
  write_row_file(folder / "rows.bin", columns, 42);
  const std::string text = read_file(folder / "rows.bin");
  return {text.begin(), text.end()};
}

TEST(RowFile, BringsBackWhatWasWrittenInBlocks) {
  const RowColumns columns = made_rows(70000);
  const auto bytes = file_of(columns);
  const RowFile file = parse_row_file(bytes, "rows.bin");
  ASSERT_EQ(file.blocks.size(), 2u);
  EXPECT_EQ(file.blocks[0].rows, kBlockRows);
  EXPECT_EQ(file.rows, 70000u);
  EXPECT_EQ(file.positives, 23334u);
  EXPECT_EQ(file.encoding, 42u);
  EXPECT_EQ(file.blocks[1].ids(1)[10], kBlockRows + 10);
  EXPECT_EQ(file.blocks[1].numerics(2, 0)[2], static_cast<float>(kBlockRows + 2) / 2);
  EXPECT_EQ(file.blocks[0].labels(2, 1)[3], 1);
  check_all(bytes);
}

TEST(RowFile, ATruncatedFileIsRefusedWithItsBlock) {
  const auto bytes = file_of(made_rows(70000));
  for (const std::size_t length : {std::size_t{0}, std::size_t{63}, std::size_t{64}, bytes.size() / 2})
    STOA_EXPECT_CONTAINS(thrown<DataError>([&] { check_all(std::span(bytes).first(length)); }),
                         "rows.bin: truncated");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { check_all(std::span(bytes).first(bytes.size() - 1)); }),
                       "truncated in block 1");
}

TEST(RowFile, EveryAlteredByteIsNoticed) {
  const auto whole = file_of(made_rows(40));
  const std::size_t padding = 44 + 4;  // zeros up to the end of the header mean nothing
  for (std::size_t i = 0; i < whole.size(); ++i) {
    if (i >= padding && i < 64) continue;
    auto altered = whole;
    altered[i] ^= 16;
    EXPECT_NE(thrown<DataError>([&] { check_all(altered); }), "") << i;
  }
}

TEST(RowFile, AnAlteredValueIsRefusedWithItsBlock) {
  auto bytes = file_of(made_rows(70000));
  bytes[bytes.size() - 100] ^= 1;
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { check_all(bytes); }),
                       "rows.bin, block 1: the block was altered");
}

TEST(RowFile, BytesBehindTheLastBlockAreRefused) {
  auto bytes = file_of(made_rows(3));
  bytes.push_back(0);
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { check_all(bytes); }), "1 bytes follow the last block");
}

TEST(RowFile, AnIdBeyondTheVocabularyIsRefused) {
  const auto bytes = file_of(made_rows(8));
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] {
                         check_all(bytes, {6, 100});
                       }),
                       "block 0: field 0 has the id 6, ids are below 6");
}

}  // namespace
}  // namespace stoa::test
