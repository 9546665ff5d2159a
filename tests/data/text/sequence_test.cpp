#include "stoa/data/text/sequence.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/fake_tokenizer.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using Ids = std::vector<std::int32_t>;
constexpr SequenceMarks kMarks{2, 3, 0};

Ids counted(std::int32_t first, std::int32_t count) {
  Ids ids;
  for (std::int32_t i = 0; i < count; ++i) ids.push_back(first + i);
  return ids;
}

/// What BERT's program does: one token at a time from the longer one.
std::pair<std::size_t, std::size_t> popped(std::size_t a, std::size_t b, std::size_t room) {
  while (a + b > room) (a > b ? a : b) -= 1;
  return {a, b};
}

TEST(Sequence, OneSentenceStandsBetweenItsMarks) {
  const auto sequence = join_sequence(kMarks, counted(10, 3), 8);
  EXPECT_EQ(sequence.ids, (Ids{2, 10, 11, 12, 3}));
  EXPECT_EQ(sequence.second, 5);
  EXPECT_EQ(join_sequence(kMarks, counted(10, 9), 5).ids, (Ids{2, 10, 11, 12, 3}));
}

TEST(Sequence, TwoSentencesHaveAMarkBehindEach) {
  const auto sequence = join_sequence(kMarks, counted(10, 2), counted(20, 1), 8);
  EXPECT_EQ(sequence.ids, (Ids{2, 10, 11, 3, 20, 3}));
  EXPECT_EQ(sequence.second, 4);
}

TEST(Sequence, TheLongerSentenceIsCutAsBertCutsIt) {
  for (std::int32_t a = 0; a < 14; ++a)
    for (std::int32_t b = 0; b < 14; ++b)
      for (std::int64_t length = 3; length < 20; ++length) {
        const auto sequence = join_sequence(kMarks, counted(100, a), counted(200, b), length);
        const auto [kept_a, kept_b] = popped(static_cast<std::size_t>(a), static_cast<std::size_t>(b),
                                             static_cast<std::size_t>(length - 3));
        ASSERT_EQ(sequence.second, static_cast<std::int64_t>(kept_a) + 2) << a << " " << b << " " << length;
        ASSERT_EQ(sequence.ids.size(), kept_a + kept_b + 3) << a << " " << b << " " << length;
        if (kept_b > 0) {
          EXPECT_EQ(sequence.ids[kept_a + 2], 200);
        }
      }
}

TEST(Sequence, ABatchIsPaddedToItsLongest) {
  const auto one = join_sequence(kMarks, counted(10, 1), 8);
  const auto two = join_sequence(kMarks, counted(10, 2), counted(20, 2), 8);
  const auto batch = sequence_batch({&one, &two}, 9);
  EXPECT_EQ(batch.samples, 2);
  EXPECT_TRUE(batch["ids"].equal(
      at::tensor({2, 10, 3, 9, 9, 9, 9, 2, 10, 11, 3, 20, 21, 3}, at::kLong).view({2, 7})));
  EXPECT_TRUE(batch["segments"].equal(
      at::tensor({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1}, at::kLong).view({2, 7})));
  EXPECT_TRUE(batch["lengths"].equal(at::tensor({3, 7}, at::kLong)));
}

class Causal : public test::FakeTokenizer {
 public:
  explicit Causal(std::int32_t end) : FakeTokenizer({"a"}) { own_.begin = own_.end = end; }
  const SpecialTokens& special() const override { return own_; }

 private:
  SpecialTokens own_;
};

TEST(SequenceMarks, AVocabularyWithoutClsLendsItsEndOfText) {
  const auto marks = sequence_marks(Causal(5));
  EXPECT_EQ(marks.cls, 5);
  EXPECT_EQ(marks.sep, 5);
  EXPECT_EQ(marks.pad, 0);
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([] { sequence_marks(Causal(-1)); }),
                       "neither [CLS] and [SEP] nor an end of text");
}

}  // namespace
}  // namespace stoa
