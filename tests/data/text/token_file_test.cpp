#include "stoa/data/text/token_file.h"

#include <gtest/gtest.h>

#include <cstring>

#include "stoa/base/errors.h"
#include "support/click_files.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

const std::vector<std::int32_t> kIds = {5, 0, 99, 7, 7, 1}, kSizes = {2, 1, 0, 3};
const std::vector<std::int64_t> kBounds = {0, 2, 2, 4};

class TokenFiles : public ::testing::Test {
 protected:
  fs::path prefix() const { return folder_ / "corpus"; }
  void write(TokenType type = TokenType::kU16) const {
    write_token_file(prefix(), type, kIds, kSizes, kBounds);
  }
  /// What opening says once the index's bytes were changed by `change`.
  std::string refused(const std::function<void(std::string&)>& change) const {
    write();
    std::string index = read_file(token_index_name(prefix()));
    change(index);
    write_text(token_index_name(prefix()), index);
    return thrown<DataError>([&] { TokenFile(prefix(), 100); });
  }
  template <class T>
  std::string refused_at(std::size_t place, T value) const {
    return refused([&](std::string& index) { std::memcpy(index.data() + place, &value, sizeof value); });
  }

  TempDir folder_;
};

TEST_F(TokenFiles, OfEveryTypeReadAsWritten) {
  for (const TokenType type :
       {TokenType::kU8, TokenType::kI8, TokenType::kI16, TokenType::kI32, TokenType::kI64, TokenType::kU16}) {
    write(type);
    const TokenFile file(prefix(), 100);
    const TokenIndex& index = file.index();
    EXPECT_EQ(index.type(), type);
    EXPECT_EQ(index.documents(), 3);
    EXPECT_EQ(index.sentences(), 4);
    EXPECT_EQ(index.tokens(), 6);
    std::vector<std::int64_t> begins, bounds;
    for (std::int64_t s = 0; s <= 4; ++s) begins.push_back(index.sentence_begin(s));
    for (std::int64_t d = 0; d <= 3; ++d) bounds.push_back(index.document_begin(d));
    EXPECT_EQ(begins, (std::vector<std::int64_t>{0, 2, 3, 3, 6}));
    EXPECT_EQ(bounds, kBounds);
    std::vector<std::int32_t> ids(6);
    file.read(0, 6, ids.data());
    EXPECT_EQ(ids, kIds) << token_type_name(type);
  }
}

TEST_F(TokenFiles, AreTheBytesThatMegatronWrites) {
  write_token_file(prefix(), TokenType::kU16, std::vector<std::int32_t>{1, 258, 3},
                   std::vector<std::int32_t>{2, 1}, std::vector<std::int64_t>{0, 2});
  EXPECT_EQ(read_file(token_file_name(prefix())), (std::string("\x01\0\x02\x01\x03\0", 6)));
  const std::string header("MMIDIDX\0\0\x01\0\0\0\0\0\0\0\x08\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0", 34);
  const std::string sizes("\x02\0\0\0\x01\0\0\0", 8), offsets("\0\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0", 16),
      documents("\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0", 16);
  EXPECT_EQ(read_file(token_index_name(prefix())), header + sizes + offsets + documents);
}

TEST(TokenType, IsTwoBytesWhereTheVocabularyFits) {
  EXPECT_EQ(token_type_of(65499), TokenType::kU16);
  EXPECT_EQ(token_type_of(65500), TokenType::kI32);
}

TEST_F(TokenFiles, CountTheirIds) {
  write();
  const auto counts = TokenFile(prefix(), 100).counts();
  ASSERT_EQ(counts.size(), 100u);
  EXPECT_EQ(counts[7], 2);
  EXPECT_EQ(counts[99], 1);
  EXPECT_EQ(counts[2], 0);
}

TEST_F(TokenFiles, TruncatedAtAnyByteAreRefused) {
  write();
  for (const fs::path& file : {token_index_name(prefix()), token_file_name(prefix())}) {
    const std::string whole = read_file(file);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      write_text(file, whole.substr(0, size));
      STOA_EXPECT_CONTAINS(thrown<DataError>([&] { TokenFile(prefix(), 100); }), "truncated");
    }
    write_text(file, whole + "x");
    STOA_EXPECT_CONTAINS(thrown<DataError>([&] { TokenFile(prefix(), 100); }), file.filename().string());
    write_text(file, whole);
  }
}

TEST_F(TokenFiles, AlteredIndexesAreRefusedByWhatIsWrong) {
  STOA_EXPECT_CONTAINS(refused_at<char>(0, 'X'), "corpus.idx: no index of tokens");
  STOA_EXPECT_CONTAINS(refused_at<std::uint64_t>(9, 2), "version 2");
  STOA_EXPECT_CONTAINS(refused_at<std::uint8_t>(17, 6), "numbers with a point");
  STOA_EXPECT_CONTAINS(refused_at<std::uint8_t>(17, 9), "type 9 is unknown");
  STOA_EXPECT_CONTAINS(refused_at<std::uint64_t>(18, 5), "truncated or altered");
  STOA_EXPECT_CONTAINS(refused_at<std::uint64_t>(18, ~std::uint64_t{0}), "truncated or altered");
  STOA_EXPECT_CONTAINS(refused_at<std::uint64_t>(26, std::uint64_t{1} << 61), "truncated or altered");
  STOA_EXPECT_CONTAINS(refused_at<std::uint64_t>(26, 3), "8 bytes follow");
  STOA_EXPECT_CONTAINS(refused_at<std::int32_t>(34 + 4, -1), "sentence 1 has -1 tokens");
  STOA_EXPECT_CONTAINS(refused_at<std::int32_t>(34 + 4, 2), "sentence 2 begins at byte 6");
  STOA_EXPECT_CONTAINS(refused_at<std::int32_t>(34 + 12, 2), "corpus.bin: 12 bytes; the index needs 10");
  STOA_EXPECT_CONTAINS(refused_at<std::int64_t>(50 + 8, 3), "sentence 1 begins at byte 3");
  STOA_EXPECT_CONTAINS(refused_at<std::int64_t>(50 + 8, -4), "sentence 1 begins at byte -4");
  STOA_EXPECT_CONTAINS(refused_at<std::int64_t>(82, 1), "document 0 begins at sentence 1");
  STOA_EXPECT_CONTAINS(refused_at<std::int64_t>(82 + 8, 5), "document 1 begins at sentence 5");
  STOA_EXPECT_CONTAINS(refused_at<std::int64_t>(82 + 16, 1), "document 2 begins at sentence 1");
  STOA_EXPECT_CONTAINS(refused_at<std::int64_t>(82 + 24, 3), "the last document ends at sentence 3 of 4");
}

TEST_F(TokenFiles, IdsOutsideTheVocabularyAreRefusedWithTheirPlace) {
  write(TokenType::kI32);
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { TokenFile(prefix(), 99); }),
                       "corpus.bin: token 2 has the id 99; ids of the vocabulary are 0 to 98");
  std::string tokens = read_file(token_file_name(prefix()));
  tokens[23] = '\x80';
  write_text(token_file_name(prefix()), tokens);
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { TokenFile(prefix(), 100); }), "token 5 has the id -");
}

TEST_F(TokenFiles, AbsentOnesAreNamed) {
  STOA_EXPECT_CONTAINS(thrown<IoError>([&] { TokenFile(prefix(), 100); }), "corpus.idx");
}

TEST_F(TokenFiles, BeyondTheirEndAreNotRead) {
  write();
  const TokenFile file(prefix(), 100);
  std::int32_t ids[8];
  EXPECT_THROW(file.read(5, 2, ids), Error);
  EXPECT_THROW(file.read(-1, 1, ids), Error);
}

}  // namespace
}  // namespace stoa::test
