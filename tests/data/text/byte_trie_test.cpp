#include "stoa/data/text/byte_trie.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "stoa/base/random.h"

namespace stoa::test {
namespace {

TEST(ByteTrie, FindsTheLongestStringThatATextBeginsWith) {
  const ByteTrie trie({{"a", 0}, {"abc", 1}, {"abcdx", 2}, {"b", 3}});
  const auto match = trie.longest(ByteTrie::kRoot, "abcdef");
  EXPECT_EQ(match.id, 1);
  EXPECT_EQ(match.length, 3u);
  EXPECT_EQ(trie.longest(ByteTrie::kRoot, "ab").length, 1u);
  EXPECT_EQ(trie.longest(ByteTrie::kRoot, "c").length, 0u);
  EXPECT_EQ(trie.longest(trie.walk(ByteTrie::kRoot, "ab"), "cdx").id, 2);
}

TEST(ByteTrie, WithoutStringsFindsNone) {
  const ByteTrie trie;
  EXPECT_EQ(trie.find(""), ByteTrie::kNone);
  EXPECT_EQ(trie.step(ByteTrie::kRoot, '\0'), ByteTrie::kNone);
  EXPECT_EQ(trie.longest(ByteTrie::kRoot, "abc").length, 0u);
}

TEST(ByteTrie, OfAStringTwiceTheLaterCounts) {
  EXPECT_EQ(ByteTrie({{"x", 1}, {"x", 2}}).find("x"), 2);
}

TEST(ByteTrie, AgreesWithAMapOfManyRandomStrings) {
  RandomStream random(5);
  std::vector<std::string> strings;
  std::map<std::string, std::int32_t> expected;
  for (std::int32_t i = 0; i < 20000; ++i) {
    std::string text;
    for (std::int64_t n = random.integer(1, 9); n > 0; --n)
      text.push_back(static_cast<char>(random.integer(0, i % 2 == 0 ? 4 : 256)));
    strings.push_back(text);
    expected[text] = i;
  }
  std::vector<std::pair<std::string_view, std::int32_t>> keys;
  for (std::int32_t i = 0; i < 20000; ++i) keys.emplace_back(strings[static_cast<std::size_t>(i)], i);
  const ByteTrie trie(std::move(keys));
  for (const auto& [text, id] : expected) ASSERT_EQ(trie.find(text), id);
  for (const auto& text : strings)
    for (const std::string& other : {text + "x", text.substr(1), text.substr(0, text.size() - 1)}) {
      const auto found = expected.find(other);
      ASSERT_EQ(trie.find(other), found == expected.end() ? ByteTrie::kNone : found->second);
    }
}

}  // namespace
}  // namespace stoa::test
