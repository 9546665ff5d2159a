#include "stoa/data/tabular/vocabulary.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "stoa/base/random.h"
#include "stoa/data/tabular/parse.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

KeyRun counted(const std::vector<std::string>& texts) {
  KeyCounter counter;
  std::vector<std::uint64_t> keys;
  std::vector<std::string_view> views(texts.begin(), texts.end());
  for (const auto view : views) keys.push_back(key_of_text(view));
  counter.add(keys, views.data(), nullptr);
  return counter.finish();
}

/// A vocabulary with the bytes it points to.
struct Held {
  explicit Held(std::string file) : bytes(std::move(file)), vocabulary(span(bytes), "v") {}
  static std::span<const std::uint8_t> span(const std::string& text) {
    return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
  }
  std::string bytes;
  Vocabulary vocabulary;
};

TEST(KeyCounter, CountsAsManyDistinctKeysAsThereAre) {
  KeyCounter counter;
  std::vector<std::uint64_t> keys;
  for (std::uint64_t i = 0; i < 100000; ++i) keys.push_back(i * i % 30011);
  counter.add(keys, nullptr, nullptr);
  const KeyRun run = counter.finish();
  std::vector<std::uint32_t> expected(30011);
  for (const auto key : keys) ++expected[key];
  std::size_t distinct = 0;
  for (std::size_t i = 0; i < run.size(); ++i) EXPECT_EQ(run.counts[i], expected[run.keys[i]]);
  for (const auto count : expected) distinct += count > 0;
  EXPECT_EQ(run.size(), distinct);
  EXPECT_TRUE(std::is_sorted(run.keys.begin(), run.keys.end()));
}

TEST(KeyCounter, KeepsRowsThatAreNotCountedWithCountZero) {
  KeyCounter counter;
  counter.add(std::vector<std::uint64_t>{5, 5, 6}, nullptr, std::vector<std::uint8_t>{1, 1, 0}.data());
  const KeyRun run = counter.finish();
  EXPECT_EQ(run.counts, (std::vector<std::uint32_t>{2, 0}));
}

TEST(KeyRun, WhatIsDamagedIsRefused) {
  const auto refused = [](const KeyRun& run) {
    ByteWriter writer;
    run.write(writer);
    const std::string& text = writer.text();
    ByteReader reader({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}, "run");
    return thrown<DataError>([&] { KeyRun::read(reader); });
  };
  const std::string damaged = "run: truncated or damaged; prepare the data again";
  EXPECT_EQ(refused({{1, 2}, {1, 1}, {5, 3}, "abc"}), damaged);  // ends that fall
  EXPECT_EQ(refused({{1, 2}, {1, 1}, {1, 9}, "abc"}), damaged);  // ends behind the texts
  EXPECT_EQ(refused({{1, 2}, {1, 1}, {3}, "abc"}), damaged);     // fewer ends than keys
  EXPECT_EQ(refused({{2, 2}, {1, 1}, {}, ""}), damaged);         // a key twice
}

TEST(RunMerger, MergesAnyNumberOfRunsInAnyOrder) {
  RunMerger merger;
  for (std::uint64_t i = 0; i < 50; ++i) {
    KeyCounter counter;
    counter.add(std::vector<std::uint64_t>{i, i + 1, 7}, nullptr, nullptr);
    merger.add(counter.finish());
  }
  const KeyRun run = merger.finish();
  EXPECT_EQ(run.size(), 51u);
  EXPECT_EQ(run.counts[0], 1u);
  EXPECT_EQ(run.counts[7], 52u);
  EXPECT_EQ(run.counts[20], 2u);
}

TEST(RunMerger, ATwofoldHashIsRefused) {
  KeyRun a, b;
  const std::string_view x = "x", y = "y";
  a.append(1, 1, &x);
  b.append(1, 1, &y);
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { merge(a, b); }), "`x` and `y` have the same 64-bit hash");
}

TEST(Vocabulary, IdsAreRanksOfSortedTexts) {
  const Held held(
      Vocabulary::build(CellType::kText, false, counted({"pear", "apple", "Zoo", "apple"}), 1, nullptr));
  std::vector<std::uint32_t> ids(3);
  held.vocabulary.ids(
      std::vector<std::uint64_t>{key_of_text("Zoo"), key_of_text("apple"), key_of_text("fig")}, ids.data());
  EXPECT_EQ(ids, (std::vector<std::uint32_t>{0, 1, Vocabulary::kAbsent}));
  EXPECT_EQ(held.vocabulary.text(2), "pear");
}

TEST(Vocabulary, RareAndNewValuesAreUnknownUnderAThreshold) {
  const Held held(Vocabulary::build(CellType::kText, true, counted({"b", "a", "b"}), 2, nullptr));
  EXPECT_EQ(held.vocabulary.size(), 2);
  EXPECT_EQ(held.vocabulary.id(key_of_text("b"), "b"), 1u);
  EXPECT_EQ(held.vocabulary.id(key_of_text("a"), "a"), 0u);
  EXPECT_EQ(held.vocabulary.text(0), "unknown");
}

TEST(Vocabulary, GrowsBehindItsOldIds) {
  const Held old(Vocabulary::build(CellType::kText, false, counted({"m", "n"}), 1, nullptr));
  const Held grown(Vocabulary::build(CellType::kText, false, counted({"z", "n", "a"}), 1, &old.vocabulary));
  ASSERT_EQ(grown.vocabulary.size(), 4);
  EXPECT_EQ(grown.vocabulary.text(0) + grown.vocabulary.text(1) + grown.vocabulary.text(2) +
                grown.vocabulary.text(3),
            "mnaz");
}

TEST(Vocabulary, ATextThatOnlySharesTheHashIsNotFound) {
  const Held held(Vocabulary::build(CellType::kText, false, counted({"a"}), 1, nullptr));
  EXPECT_EQ(held.vocabulary.id(key_of_text("a"), "b"), Vocabulary::kAbsent);
}

TEST(Vocabulary, FindsEveryOneOfManyKeys) {
  KeyRun run;
  for (std::uint64_t i = 0; i < 50000; ++i) run.append(i << 20, 1, nullptr);
  const Held held(Vocabulary::build(CellType::kHex, true, run, 1, nullptr));
  std::vector<std::uint32_t> ids(run.size());
  held.vocabulary.ids(run.keys, ids.data());
  for (std::size_t i = 0; i < ids.size(); ++i) ASSERT_EQ(ids[i], i + 1);
}

TEST(Vocabulary, EveryAlteredByteIsNoticed) {
  const std::string whole =
      Vocabulary::build(CellType::kText, true, counted({"one", "two", "three"}), 1, nullptr);
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string altered = whole;
    altered[i] = static_cast<char>(altered[i] ^ 4);
    EXPECT_NE(thrown<DataError>([&] { const Held held(altered); }), "") << i;
    EXPECT_NE(thrown<DataError>([&] { const Held held(whole.substr(0, i)); }), "") << i;
  }
}

TEST(HashedId, IsEvenOverTheBucketsAndDiffersByField) {
  std::vector<int> counts(10);
  int same = 0;
  for (std::uint64_t key = 0; key < 20000; ++key) {
    ++counts[hashed_id(key, 3, 0, 10)];
    same += hashed_id(key, 3, 0, 10) == hashed_id(key, 3, 1, 10);
  }
  for (const int count : counts) EXPECT_NEAR(count, 2000, 250);
  EXPECT_NEAR(same, 2000, 250);
}

}  // namespace
}  // namespace stoa::test
