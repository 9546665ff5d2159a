#include "stoa/data/text/windows.h"

#include <gtest/gtest.h>

#include <set>

#include "support/thrown.h"
#include "support/word_tokenizer.h"

namespace stoa::test {
namespace {

using Ids = std::vector<std::int32_t>;

constexpr std::int32_t kEnd = 5000;

/// Three documents of 5, 1 and 7 tokens, numbered from 0.
TextDocuments made_documents() {
  const Ids sizes = {2, 3, 1, 4, 3};
  const std::vector<std::int64_t> bounds = {0, 2, 3, 5};
  Ids ids(13);
  for (std::int32_t i = 0; i < 13; ++i) ids[static_cast<std::size_t>(i)] = i;
  return all_documents(std::make_shared<const TokenFile>(token_index(TokenType::kU16, sizes, bounds),
                                                         token_bytes(TokenType::kU16, ids), "made", 100));
}

const Ids kStream = {0, 1, 2, 3, 4, kEnd, 5, kEnd, 6, 7, 8, 9, 10, 11, 12, kEnd};

TEST(Windows, OfAnEvaluationReadEveryTokenOnceAndTheLastIsShorter) {
  const TokenWindows windows(made_documents(), kEnd, 6, false);
  EXPECT_EQ(windows.tokens(), 16);
  ASSERT_EQ(windows.size(), 3);
  Ids read = {kStream[0]};
  for (std::int64_t i = 0; i < 3; ++i) {
    const Ids window = windows.window(i, 99);
    EXPECT_EQ(window.front(), read.back());  // the token behind one window begins the next
    read.insert(read.end(), window.begin() + 1, window.end());
  }
  EXPECT_EQ(read, kStream);
  EXPECT_EQ(windows.window(2, 0).size(), 4u);  // 15 tokens have one behind them: 6, 6 and 3
}

TEST(Windows, WithoutAnEndTokenJoinDocumentsDirectly) {
  const TokenWindows windows(made_documents(), -1, 20, false);
  ASSERT_EQ(windows.size(), 1);
  EXPECT_EQ(windows.window(0, 0), (Ids{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
}

TEST(Windows, OfTrainingReadEachTokenAtMostOnceAndLeaveOutLessThanAWindow) {
  for (const std::int64_t length : {1, 3, 4, 5, 15}) {
    const TokenWindows windows(made_documents(), kEnd, length, true);
    EXPECT_EQ(windows.size(), 16 / length);
    for (std::uint64_t epoch = 0; epoch < 40; ++epoch) {
      std::multiset<std::int32_t> read;
      for (std::int64_t i = 0; i < windows.size(); ++i) {
        const Ids window = windows.window(i, epoch);
        ASSERT_EQ(std::ssize(window), length + 1);
        read.insert(window.begin(), window.end() - 1);
      }
      for (std::int32_t id = 0; id < 13; ++id) EXPECT_LE(read.count(id), 1u);
      EXPECT_LE(read.count(kEnd), 3u);
      EXPECT_LT(16 - std::ssize(read), length);
    }
  }
}

TEST(Windows, OfTrainingFollowTheStreamAcrossItsEnd) {
  const TokenWindows windows(made_documents(), kEnd, 5, true);
  Ids twice = kStream;
  twice.insert(twice.end(), kStream.begin(), kStream.end());
  for (std::uint64_t epoch = 0; epoch < 40; ++epoch)
    for (std::int64_t i = 0; i < windows.size(); ++i) {
      const Ids window = windows.window(i, epoch);
      EXPECT_NE(std::search(twice.begin(), twice.end(), window.begin(), window.end()), twice.end());
    }
}

TEST(Windows, OfTrainingBeginElsewhereInEveryEpoch) {
  const TokenWindows windows(made_documents(), kEnd, 5, true);
  std::set<Ids> firsts;
  for (std::uint64_t epoch = 0; epoch < 200; ++epoch) firsts.insert(windows.window(0, epoch));
  EXPECT_EQ(firsts.size(), 16u);
  EXPECT_EQ(windows.window(1, 7), windows.window(1, 7));
}

TEST(Windows, TooLittleTextIsRefused) {
  STOA_EXPECT_CONTAINS(thrown<DataError>([] { TokenWindows(made_documents(), kEnd, 16, true); }),
                       "16 tokens of text; 17 are needed");
  EXPECT_EQ(TokenWindows(made_documents(), kEnd, 15, true).size(), 1);
}

}  // namespace
}  // namespace stoa::test
