#include "stoa/data/text/pairs.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "support/thrown.h"
#include "support/word_tokenizer.h"

namespace stoa::test {
namespace {

using Ids = std::vector<std::int32_t>;

/// Documents whose tokens are numbered from 0, of sentences of the given sizes: a token's id is its place.
TextDocuments documents_of(const std::vector<std::vector<std::int32_t>>& sizes) {
  std::vector<std::int32_t> ids, all;
  std::vector<std::int64_t> bounds = {0};
  for (const auto& document : sizes) {
    for (const std::int32_t size : document) {
      all.push_back(size);
      for (std::int32_t i = 0; i < size; ++i) ids.push_back(static_cast<std::int32_t>(ids.size()));
    }
    bounds.push_back(std::ssize(all));
  }
  return all_documents(std::make_shared<const TokenFile>(token_index(TokenType::kI32, all, bounds),
                                                         token_bytes(TokenType::kI32, ids), "made",
                                                         std::int64_t{1} << 30));
}

/// 200 documents of 1 to 20 sentences of 1 to 30 tokens, and a few sentences that are longer than a sequence.
TextDocuments many_documents() {
  RandomStream random(3);
  std::vector<std::vector<std::int32_t>> sizes(200);
  for (auto& document : sizes)
    for (std::int64_t n = random.integer(1, 21); n > 0; --n)
      document.push_back(static_cast<std::int32_t>(random.uniform() < 0.02 ? random.integer(60, 300)
                                                                           : random.integer(1, 31)));
  return documents_of(sizes);
}

std::size_t document_of(const TextDocuments& documents, std::int32_t token) {
  for (std::size_t d = 0; d < documents.documents.size(); ++d)
    if (token < documents.token_end(d)) return d;
  return documents.documents.size();
}

SegmentPair segments(const SentenceBlocks& blocks, std::int64_t number, std::uint64_t seed = 0) {
  RandomStream random(mix_seed({seed, static_cast<std::uint64_t>(number)}));
  return blocks.segments(number, random);
}

bool runs_on(const Ids& ids) {
  for (std::size_t i = 1; i < ids.size(); ++i)
    if (ids[i] != ids[i - 1] + 1) return false;
  return true;
}

TEST(TruncatePair, TakesFromTheLongerSideAtBothEnds) {
  Ids first = {1, 2, 3, 4, 5, 6, 7, 8}, second = {11, 12, 13};
  RandomStream random(1);
  truncate_pair(first, second, 6, random);
  EXPECT_EQ(first.size(), 3u);
  EXPECT_EQ(second.size(), 3u);
  EXPECT_TRUE(runs_on(first));
  std::set<std::int32_t> fronts;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    Ids long_one = {1, 2, 3, 4}, short_one = {9};
    RandomStream other(seed);
    truncate_pair(long_one, short_one, 4, other);
    EXPECT_EQ(long_one.size(), 3u);
    fronts.insert(long_one.front());
  }
  EXPECT_EQ(fronts, (std::set<std::int32_t>{1, 2}));
}

TEST(TruncatePair, LeavesWhatFits) {
  Ids first = {1, 2}, second = {3};
  RandomStream random(1);
  truncate_pair(first, second, 3, random);
  EXPECT_EQ(first.size() + second.size(), 3u);
}

TEST(SentenceBlocks, WithoutPairsHoldEveryTokenOnceInOrder) {
  const TextDocuments documents = many_documents();
  const SentenceBlocks blocks(documents, PairTask::kNone, 50, 0.1);
  Ids all;
  for (std::int64_t i = 0; i < blocks.size(); ++i) {
    const SegmentPair pair = segments(blocks, i);
    EXPECT_LE(pair.first.size(), 48u);
    EXPECT_TRUE(pair.second.empty());
    EXPECT_EQ(document_of(documents, pair.first.front()), document_of(documents, pair.first.back()));
    all.insert(all.end(), pair.first.begin(), pair.first.end());
  }
  EXPECT_EQ(std::ssize(all), documents.tokens());
  EXPECT_EQ(all.front(), 0);
  EXPECT_TRUE(runs_on(all));
}

TEST(SentenceBlocks, AreFilledAsFarAsSentencesFit) {
  const SentenceBlocks blocks(documents_of({{3, 4, 5, 2}, {6}}), PairTask::kNone, 12, 0);
  ASSERT_EQ(blocks.size(), 3);
  EXPECT_EQ(segments(blocks, 0).first, (Ids{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(segments(blocks, 1).first, (Ids{7, 8, 9, 10, 11, 12, 13}));
  EXPECT_EQ(segments(blocks, 2).first.size(), 6u);
}

TEST(SentenceBlocks, ASentenceBeyondASequenceIsCutIntoEqualPieces) {
  const SentenceBlocks blocks(documents_of({{25}}), PairTask::kNone, 12, 0);
  std::vector<std::size_t> sizes;
  for (std::int64_t i = 0; i < blocks.size(); ++i) sizes.push_back(segments(blocks, i).first.size());
  EXPECT_EQ(sizes, (std::vector<std::size_t>{8, 8, 9}));
}

TEST(SentenceBlocks, AShareAimsAtShorterLengths) {
  const TextDocuments documents = documents_of({std::vector<std::int32_t>(40000, 1)});
  const SentenceBlocks blocks(documents, PairTask::kNone, 102, 0.1);
  std::int64_t shorter = 0, below_half = 0;
  for (std::int64_t i = 0; i + 1 < blocks.size(); ++i) {
    const auto size = std::ssize(segments(blocks, i).first);
    EXPECT_GE(size, 2);
    shorter += size < 100;
    below_half += size <= 50;
  }
  const double expected = 0.1 * static_cast<double>(blocks.size()) * 98 / 99;
  EXPECT_NEAR(static_cast<double>(shorter), expected, 5 * std::sqrt(expected));
  EXPECT_NEAR(static_cast<double>(below_half), expected / 2, 5 * std::sqrt(expected / 2));
}

TEST(SentenceOrder, SegmentsFollowOneAnotherInOneDocumentOrAreSwapped) {
  const TextDocuments documents = many_documents();
  const SentenceBlocks blocks(documents, PairTask::kSentenceOrder, 64, 0.1);
  std::int64_t swapped = 0;
  for (std::int64_t i = 0; i < blocks.size(); ++i) {
    SegmentPair pair = segments(blocks, i);
    ASSERT_FALSE(pair.first.empty());
    ASSERT_FALSE(pair.second.empty());
    EXPECT_LE(pair.first.size() + pair.second.size(), 61u);
    swapped += pair.label;
    if (pair.label == 1) std::swap(pair.first, pair.second);
    EXPECT_LT(pair.first.back(), pair.second.front());
    EXPECT_TRUE(runs_on(pair.first) && runs_on(pair.second));
    EXPECT_EQ(document_of(documents, pair.first.front()), document_of(documents, pair.second.back()));
  }
  const auto all = static_cast<double>(blocks.size());
  EXPECT_NEAR(static_cast<double>(swapped), all / 2, 5 * std::sqrt(all / 4));
}

TEST(SentenceOrder, EverySentenceOfTwoOrMoreIsInOneBlock) {
  // sequences so long that nothing is cut away: a document is one block
  const TextDocuments documents = many_documents();
  const SentenceBlocks blocks(documents, PairTask::kSentenceOrder, 5000, 0);
  std::map<std::size_t, std::int64_t> tokens;
  for (std::int64_t i = 0; i < blocks.size(); ++i) {
    const SegmentPair pair = segments(blocks, i);
    tokens[document_of(documents, pair.first.front())] += std::ssize(pair.first) + std::ssize(pair.second);
  }
  for (std::size_t d = 0; d < documents.documents.size(); ++d) {
    const bool single = documents.documents[d].end - documents.documents[d].begin == 1;
    EXPECT_EQ(tokens[d], single ? 0 : documents.token_end(d) - documents.token_begin(d)) << d;
  }
}

TEST(SentenceOrder, NoSentenceIsLeftAloneAtTheEnd) {
  // two fill a block: the third joins it, as it could not be split
  const SentenceBlocks blocks(documents_of({{10, 10, 10}}), PairTask::kSentenceOrder, 23, 0);
  EXPECT_EQ(blocks.size(), 1);
  EXPECT_EQ(SentenceBlocks(documents_of({{10, 10, 10, 10}}), PairTask::kSentenceOrder, 23, 0).size(), 2);
}

TEST(SentenceOrder, NeedsADocumentOfTwoSentences) {
  STOA_EXPECT_CONTAINS(thrown<DataError>([] {
                         SentenceBlocks(documents_of({{3}, {4}}), PairTask::kSentenceOrder, 20, 0);
                       }),
                       "every document has but one sentence");
}

TEST(NextSentence, SecondsFollowOrAreFromAnotherDocument) {
  const TextDocuments documents = many_documents();
  const SentenceBlocks blocks(documents, PairTask::kNextSentence, 64, 0.1);
  std::int64_t divisible = 0, random = 0;
  for (std::int64_t i = 0; i < blocks.size(); ++i) {
    const SegmentPair pair = segments(blocks, i);
    ASSERT_FALSE(pair.first.empty());
    ASSERT_FALSE(pair.second.empty());
    EXPECT_LE(pair.first.size() + pair.second.size(), 61u);
    EXPECT_TRUE(runs_on(pair.first) && runs_on(pair.second));
    const std::size_t first = document_of(documents, pair.first.front()),
                      second = document_of(documents, pair.second.front());
    if (pair.label == 0) {
      EXPECT_EQ(first, second);
      EXPECT_LT(pair.first.back(), pair.second.front());
      ++divisible;
    } else {
      EXPECT_NE(first, second);
      ++random;
    }
  }
  EXPECT_GT(random, divisible);  // blocks of one sentence have no next one
  EXPECT_GT(divisible, blocks.size() / 4);
}

TEST(NextSentence, LabelsAreBalancedWhereBlocksHaveTwoSentences) {
  const TextDocuments documents = documents_of(std::vector<std::vector<std::int32_t>>(2000, {10, 10}));
  const SentenceBlocks blocks(documents, PairTask::kNextSentence, 23, 0);
  EXPECT_EQ(blocks.size(), 2000);
  std::int64_t random = 0;
  for (std::int64_t i = 0; i < blocks.size(); ++i) random += segments(blocks, i).label;
  EXPECT_NEAR(static_cast<double>(random), 1000, 5 * std::sqrt(500));
}

TEST(NextSentence, OtherDocumentsAreDrawnAlike) {
  const TextDocuments documents = documents_of(std::vector<std::vector<std::int32_t>>(5, {4}));
  const SentenceBlocks blocks(documents, PairTask::kNextSentence, 11, 0);
  std::map<std::size_t, int> drawn;
  for (std::uint64_t seed = 0; seed < 4000; ++seed)
    ++drawn[document_of(documents, segments(blocks, 2, seed).second.front())];
  EXPECT_EQ(drawn.count(2), 0u);
  for (const std::size_t other : {0, 1, 3, 4}) EXPECT_NEAR(drawn[other], 1000, 5 * std::sqrt(750));
}

TEST(NextSentence, NeedsTwoDocuments) {
  STOA_EXPECT_CONTAINS(thrown<DataError>([] {
                         SentenceBlocks(documents_of({{3, 4}}), PairTask::kNextSentence, 20, 0);
                       }),
                       "next sentences need two or more");
}

TEST(SentenceBlocks, PassSentencesWithoutTokens) {
  const TextDocuments documents = documents_of({{0, 3, 0, 4, 0}, {0, 0}, {5, 0, 0}});
  ASSERT_EQ(documents.documents.size(), 2u);  // one without tokens is none
  for (const PairTask pairs : {PairTask::kNone, PairTask::kNextSentence, PairTask::kSentenceOrder}) {
    const SentenceBlocks blocks(documents, pairs, 20, 0);
    for (std::uint64_t seed = 0; seed < 50; ++seed)
      for (std::int64_t i = 0; i < blocks.size(); ++i) {
        const SegmentPair pair = segments(blocks, i, seed);
        EXPECT_FALSE(pair.first.empty());
        EXPECT_EQ(pair.second.empty(), pairs == PairTask::kNone);
      }
  }
}

TEST(SentenceBlocks, OfTheShortestSequencesHoldAToken) {
  const TextDocuments documents = many_documents();
  for (const PairTask pairs : {PairTask::kNone, PairTask::kNextSentence, PairTask::kSentenceOrder}) {
    const std::int64_t length = pairs == PairTask::kNone ? 3 : 5;
    const SentenceBlocks blocks(documents, pairs, length, 0.5);
    for (std::int64_t i = 0; i < blocks.size(); i += 7) {
      const SegmentPair pair = segments(blocks, i);
      EXPECT_FALSE(pair.first.empty());
      EXPECT_LE(pair.first.size() + pair.second.size(), pairs == PairTask::kNone ? 1u : 2u);
    }
  }
}

}  // namespace
}  // namespace stoa::test
