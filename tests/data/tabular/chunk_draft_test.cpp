#include "stoa/data/tabular/chunk_draft.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/click_files.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

/// Rows of a label, an id and two numbers, and the draft of them.
class Draft : public ::testing::Test {
 protected:
  static RawLayout layout() {
    return {.source = "csv",
            .columns = {{"y", CellType::kLabel},
                        {"i", CellType::kInteger},
                        {"m", CellType::kNumber},
                        {"n", CellType::kNumber}},
            .fields = {{"i", 1}},
            .numerics = {{"m", 2}, {"n", 3}}};
  }
  ChunkDraft make(const std::string& text, VocabularyKind kind = VocabularyKind::kExact) const {
    const Joins no_joins;
    const PrepareInput input{layout(), no_joins, {"f"}, "", 0, RowSplit("random", "csv", 0), folder_ / ""};
    TabularEncoding encoding;
    encoding.kind = kind;
    encoding.sizes = {1000};
    TextChunk chunk;
    chunk.rows = std::ranges::count(text, '\n');
    chunk.text = text;
    return ChunkDraft::make(input, encoding, chunk);
  }
  /// Values of the only field, row by row.
  static std::vector<std::uint64_t> keys(const ChunkDraft& draft) {
    std::vector<std::uint32_t> places(draft.values[0].size()), rows(static_cast<std::size_t>(draft.rows));
    for (std::uint32_t i = 0; i < places.size(); ++i) places[i] = i;
    draft.read_ids(0, places, rows.data());
    std::vector<std::uint64_t> found;
    for (const auto place : rows) found.push_back(draft.values[0].keys[place]);
    return found;
  }
  static std::vector<double> numbers(const ChunkDraft& draft, std::size_t numeric) {
    std::vector<double> found(static_cast<std::size_t>(draft.rows));
    draft.read_numbers(numeric, found.data());
    return found;
  }

  TempDir folder_;
};

class DraftOfSoManyValues : public Draft, public ::testing::WithParamInterface<std::int64_t> {};

TEST_P(DraftOfSoManyValues, GivesEachRowItsValue) {
  std::string text;
  std::vector<std::uint64_t> expected;
  for (std::int64_t i = 0; i < GetParam() + 10; ++i) {
    const std::int64_t value = i * 7919 % GetParam() - 3;
    text += format("0,{},1,2\n", value);
    expected.push_back(key_of_integer(value));
  }
  const ChunkDraft draft = make(text);
  EXPECT_EQ(draft.values[0].size(), static_cast<std::size_t>(GetParam()));
  EXPECT_EQ(keys(draft), expected);
}

INSTANTIATE_TEST_SUITE_P(Widths, DraftOfSoManyValues, ::testing::Values(1, 256, 257, 65536, 65537));

TEST_F(Draft, NumbersComeBackExactly) {
  const ChunkDraft draft = make("1,5,0.5,0.1\n0,5,-3,1e300\n0,5,,12345678901\n");
  EXPECT_EQ(numbers(draft, 0), (std::vector<double>{0.5, -3, 0}));
  EXPECT_EQ(numbers(draft, 1), (std::vector<double>{0.1, 1e300, 12345678901.0}));
  EXPECT_EQ(draft.ranges[0].low, -3);
  EXPECT_EQ(draft.ranges[1].high, 1e300);
  EXPECT_EQ(std::vector<std::uint8_t>(draft.labels.begin(), draft.labels.end()),
            (std::vector<std::uint8_t>{1, 0, 0}));
}

TEST_F(Draft, HashedIdsAreThereAsTheyAre) {
  const ChunkDraft draft = make("0,5,1,1\n0,6,1,1\n", VocabularyKind::kHash);
  std::vector<std::uint32_t> ids(2);
  draft.read_ids(0, {}, ids.data());
  EXPECT_EQ(ids, (std::vector<std::uint32_t>{hashed_id(key_of_integer(5), 0, 0, 1000),
                                             hashed_id(key_of_integer(6), 0, 0, 1000)}));
}

TEST_F(Draft, AFileGivesWhatWasWritten) {
  const ChunkDraft made = make("1,5,0.5,0.1\n0,-7,-3,2\n0,5,,3\n");
  made.write(folder_ / "draft");
  const auto read = ChunkDraft::open(folder_ / "draft", layout());
  ASSERT_TRUE(read);
  EXPECT_EQ(read->rows, 3);
  EXPECT_EQ(read->train_rows, made.train_rows);
  EXPECT_EQ(keys(*read), keys(made));
  EXPECT_EQ(numbers(*read, 1), numbers(made, 1));
}

TEST_F(Draft, AFileThatIsNotWholeIsNone) {
  make("1,5,0.5,0.1\n0,-7,-3,2\n0,5,,3\n").write(folder_ / "draft");
  const std::string whole = read_file(folder_ / "draft");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write_text(folder_ / "draft", whole.substr(0, size));
    EXPECT_FALSE(ChunkDraft::open(folder_ / "draft", layout())) << size;
  }
  for (std::size_t place = 0; place < whole.size(); ++place) {
    std::string altered = whole;
    altered[place] ^= 16;
    write_text(folder_ / "draft", altered);
    EXPECT_FALSE(ChunkDraft::open(folder_ / "draft", layout())) << place;
  }
  EXPECT_FALSE(ChunkDraft::open(folder_ / "none", layout()));
}

}  // namespace
}  // namespace stoa::test
