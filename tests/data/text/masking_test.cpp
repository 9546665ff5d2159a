#include "stoa/data/text/masking.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "support/thrown.h"
#include "support/word_tokenizer.h"

namespace stoa::test {
namespace {

using Ids = std::vector<std::int32_t>;

/// [CLS] A [SEP] B [SEP] of `length` tokens, words and pieces mixed.
Ids sequence(std::int64_t length, std::uint64_t seed = 0) {
  RandomStream random(mix_seed({1, seed}));
  Ids ids(static_cast<std::size_t>(length));
  for (auto& id : ids) id = static_cast<std::int32_t>(random.integer(10, 1000));
  ids.front() = WordTokenizer::kCls;
  ids[ids.size() / 2] = ids.back() = WordTokenizer::kSep;
  return ids;
}

struct Masked {
  Ids before, after;
  std::vector<std::int64_t> targets;
  std::int64_t count() const {
    return std::ranges::count_if(targets, [](std::int64_t target) { return target != kNoTarget; });
  }
};

Masked masked(const Ids& ids, const MaskingOptions& options, std::uint64_t seed = 0) {
  Masked result{ids, ids, std::vector<std::int64_t>(ids.size(), 77)};
  RandomStream random(seed);
  mask_tokens(result.after, WordTokenizer(), options, random, result.targets);
  return result;
}

/// Whether `found` of `all` is within five standard deviations of what chance gives.
void expect_share(std::int64_t found, std::int64_t all, double share) {
  const double mean = static_cast<double>(all) * share;
  EXPECT_NEAR(static_cast<double>(found), mean, 5 * std::sqrt(mean * (1 - share)) + 1e-9) << all;
}

TEST(Masking, CountsRoundHalvesToTheEvenNumber) {
  const MaskingOptions options;
  EXPECT_EQ(masked_count(30, options), 4);
  EXPECT_EQ(masked_count(10, options), 2);
  EXPECT_EQ(masked_count(3, options), 1);
  EXPECT_EQ(masked_count(512, options), 77);
  EXPECT_EQ(masked_count(512, {.most = 20}), 20);
  EXPECT_EQ(masked_count(7, {.share = 0.5}), 4);
  EXPECT_EQ(masked_count(5, {.share = 0.5}), 2);
}

TEST(Masking, SingleTokensFillTheCountExactly) {
  for (const std::int64_t length : {5, 10, 30, 128, 512})
    EXPECT_EQ(masked(sequence(length), {}).count(), masked_count(length, {})) << length;
}

TEST(Masking, TargetsAreWhatStoodThereAndTheRestIsLeft) {
  const Masked result = masked(sequence(200), {});
  for (std::size_t i = 0; i < result.before.size(); ++i) {
    const bool asked = result.targets[i] != kNoTarget;
    EXPECT_EQ(asked ? result.targets[i] : result.after[i], result.before[i]);
  }
}

TEST(Masking, SpecialTokensAreNeverChosen) {
  for (const MaskingRule rule : {MaskingRule::kToken, MaskingRule::kWholeWord, MaskingRule::kNGram})
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
      Ids ids = sequence(24, seed);
      ids[3] = WordTokenizer::kMask;  // spelled out in the text
      ids[5] = WordTokenizer::kPad;
      ids[7] = WordTokenizer::kEnd;
      const Masked result = masked(ids, {.rule = rule, .share = 1}, seed);
      for (std::size_t i = 0; i < ids.size(); ++i)
        EXPECT_TRUE(ids[i] >= 10 || result.targets[i] == kNoTarget) << i;
    }
}

TEST(Masking, EightTenthsAreHiddenOneRandomOneKept) {
  std::int64_t all = 0, hidden = 0, kept = 0;
  std::vector<std::int64_t> draws(4);  // of the random ones, by quarter of the vocabulary
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    const Masked result = masked(sequence(128, seed), {}, seed);
    for (std::size_t i = 0; i < result.after.size(); ++i) {
      if (result.targets[i] == kNoTarget) continue;
      ++all;
      hidden += result.after[i] == WordTokenizer::kMask;
      kept += result.after[i] == result.before[i];
      if (result.after[i] != WordTokenizer::kMask && result.after[i] != result.before[i])
        ++draws[static_cast<std::size_t>(result.after[i] / 250)];
    }
  }
  expect_share(hidden, all, 0.8 + 0.1 / 1000);
  expect_share(kept, all, 0.1 + 0.1 / 1000);
  for (const std::int64_t quarter : draws) expect_share(quarter, all, 0.1 / 4);
}

TEST(Masking, EveryPlaceIsChosenAsOften) {
  std::vector<std::int64_t> chosen(30);
  const int rounds = 20000;
  for (std::uint64_t seed = 0; seed < rounds; ++seed) {
    const Masked result = masked(sequence(30), {}, seed);
    for (std::size_t i = 0; i < 30; ++i) chosen[i] += result.targets[i] != kNoTarget;
  }
  for (const std::size_t i : {1, 2, 14, 16, 28}) expect_share(chosen[i], rounds, 4.0 / 27);
}

TEST(Masking, WholeWordsAreTakenWholeAndDoNotOvershoot) {
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    const Masked result = masked(sequence(60, seed), {.rule = MaskingRule::kWholeWord}, seed);
    EXPECT_LE(result.count(), 9);
    EXPECT_GE(result.count(), 1);
    for (std::size_t i = 1; i < result.before.size(); ++i)
      if (result.before[i] >= 500 && result.before[i - 1] >= 10) {
        EXPECT_EQ(result.targets[i] == kNoTarget, result.targets[i - 1] == kNoTarget) << seed << " " << i;
      }
  }
}

TEST(Masking, AWordThatWouldOvershootIsPassedOver) {
  const Ids ids = {2, 10, 500, 501, 502, 503, 11, 3};  // a word of five tokens, one of one
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const Masked result = masked(ids, {.rule = MaskingRule::kWholeWord, .share = 0.4}, seed);
    EXPECT_EQ(result.count(), 1);
    EXPECT_EQ(result.targets[6], 11);
  }
}

TEST(Masking, RunsOfWordsHaveAChanceAsTheirInverse) {
  Ids ids(3002, 10);
  ids.front() = WordTokenizer::kCls;
  ids.back() = WordTokenizer::kSep;
  std::vector<std::int64_t> runs(4);
  std::int64_t all = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    // so few that runs hardly ever meet
    const Masked result = masked(ids, {.rule = MaskingRule::kNGram, .share = 0.004}, seed);
    EXPECT_EQ(result.count(), 12);
    std::size_t run = 0;
    for (const std::int64_t target : result.targets) {
      if (target == kNoTarget && run > 0 && run <= 3) {
        ++runs[run];
        ++all;
      }
      run = target == kNoTarget ? 0 : run + 1;
    }
  }
  // the last run is cut to what is left of the count: a bias of one run in about eight
  EXPECT_NEAR(static_cast<double>(runs[1]) / static_cast<double>(all), 6.0 / 11, 0.05);
  EXPECT_NEAR(static_cast<double>(runs[2]) / static_cast<double>(all), 3.0 / 11, 0.04);
  EXPECT_NEAR(static_cast<double>(runs[3]) / static_cast<double>(all), 2.0 / 11, 0.04);
}

TEST(Masking, RunsDoNotCrossASeparator) {
  const Ids ids = {2, 10, 3, 11, 3};
  std::set<std::int64_t> counts;
  for (std::uint64_t seed = 0; seed < 100; ++seed)
    counts.insert(masked(ids, {.rule = MaskingRule::kNGram, .share = 0.2}, seed).count());
  EXPECT_EQ(counts, std::set<std::int64_t>{1});
}

TEST(Masking, IsFixedByItsSeed) {
  const Masked first = masked(sequence(100), {}, 5), again = masked(sequence(100), {}, 5);
  EXPECT_EQ(first.after, again.after);
  EXPECT_NE(first.targets, masked(sequence(100), {}, 6).targets);
}

}  // namespace
}  // namespace stoa::test
