#include "stoa/data/text/byte_bpe.h"

#include <gtest/gtest.h>

#include <thread>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/random.h"
#include "stoa/data/text/byte_level.h"
#include "stoa/data/text/gpt2_pattern.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

using Strings = std::vector<std::string>;
using Merges = std::vector<std::pair<std::string, std::string>>;

Strings bytes_and(const Merges& merges) {
  Strings tokens;
  for (int byte = 0; byte < 256; ++byte)
    tokens.push_back(byte_level::written(std::string(1, static_cast<char>(byte))));
  for (const auto& [left, right] : merges) tokens.push_back(left + right);
  return tokens;
}

ByteBpe make(const Merges& merges, ByteBpeOptions options = {}, std::vector<AddedToken> added = {}) {
  Strings tokens = bytes_and(merges);
  TokenizerParts parts;
  for (AddedToken& token : added) {
    token.id = static_cast<std::int32_t>(tokens.size());
    token.of_model = false;
    tokens.push_back(token.content);
    parts.added.push_back(token);
  }
  parts.tokens = TokenList(std::move(tokens));
  options.merges = merges;
  return ByteBpe(std::move(parts), std::move(options));
}

Strings words(const Tokenizer& tokenizer, std::string_view text) {
  Strings found;
  for (const std::int32_t id : tokenizer.encode(text)) found.emplace_back(tokenizer.token(id));
  return found;
}

std::vector<std::pair<int, int>> places(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::pair<int, int>> found;
  for (const Token& token : tokenizer.tokens(text)) found.emplace_back(token.begin, token.end);
  return found;
}

Strings pieces(std::string_view text) {
  Strings found;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = gpt2_piece_end(text, begin);
    found.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  return found;
}

TEST(Gpt2Pattern, WordsNumbersAndTheRestTakeOneSpaceBeforeThem) {
  EXPECT_EQ(pieces("Hello world 42 !? a1"), (Strings{"Hello", " world", " 42", " !?", " a", "1"}));
}

TEST(Gpt2Pattern, ContractionsAreCutInLowerCaseAlone) {
  EXPECT_EQ(pieces("I'll don't we're I'LL 's"),
            (Strings{"I", "'ll", " don", "'t", " we", "'re", " I", "'", "LL", " '", "s"}));
  EXPECT_EQ(pieces("'sun''"), (Strings{"'s", "un", "''"}));
  EXPECT_EQ(pieces("x'v 'd"), (Strings{"x", "'", "v", " '", "d"}));
}

TEST(Gpt2Pattern, TheLastOfSeveralSpacesGoesWithWhatFollows) {
  EXPECT_EQ(pieces("a   b"), (Strings{"a", "  ", " b"}));
  EXPECT_EQ(pieces("a \n\tb"), (Strings{"a", " \n", "\t", "b"}));  // but only a space can
  EXPECT_EQ(pieces("a  "), (Strings{"a", "  "}));
  EXPECT_EQ(pieces("\xE3\x80\x80\xE3\x80\x80x"), (Strings{"\xE3\x80\x80", "\xE3\x80\x80", "x"}));
}

TEST(Gpt2Pattern, LettersAndNumbersAreThoseOfUnicode) {
  EXPECT_EQ(pieces("naïve中文 \xC2\xB2\xD9\xA3\xF0\x9F\x98\x80"),
            (Strings{"naïve中文", " \xC2\xB2\xD9\xA3", "\xF0\x9F\x98\x80"}));
}

TEST(ByteLevel, TheWayToCharactersAndBackIsExact) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(byte_level::read(byte_level::written(all)), all);
  EXPECT_EQ(byte_level::written(" \n"), "ĠĊ");
  EXPECT_EQ(byte_level::read("中"), "中");  // stands for no byte
}

TEST(ByteBpe, JoinsTheFirstMergeOfAll) {
  const ByteBpe model = make({{"b", "c"}, {"a", "b"}, {"a", "bc"}});
  EXPECT_EQ(words(model, "abc"), Strings{"abc"});
  EXPECT_EQ(words(model, "ab"), Strings{"ab"});
  EXPECT_EQ(words(make({{"a", "b"}, {"b", "c"}}), "abc"), (Strings{"ab", "c"}));
}

TEST(ByteBpe, OfEqualMergesTheLeftmostIsJoined) {
  EXPECT_EQ(words(make({{"a", "a"}}), "aaaaa"), (Strings{"aa", "aa", "a"}));
}

TEST(ByteBpe, NothingIsJoinedAcrossPieces) {
  EXPECT_EQ(words(make({{"a", "Ġ"}, {"Ġ", "b"}}), "a b"), (Strings{"a", "Ġb"}));
}

/// Joins as the definition says, one merge after the other over all places.
Strings slowly(const Merges& merges, const std::string& word) {
  Strings symbols;
  for (const char byte : word) symbols.emplace_back(1, byte);
  while (true) {
    std::size_t best = merges.size(), place = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i)
      for (std::size_t rank = 0; rank < best; ++rank)
        if (merges[rank] == std::pair(symbols[i], symbols[i + 1])) best = rank, place = i;
    if (best == merges.size()) return symbols;
    symbols[place] += symbols[place + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(place) + 1);
  }
}

TEST(ByteBpe, LongAndShortWordsAreJoinedAsTheDefinitionSays) {
  const Merges merges{{"a", "b"},  {"ab", "ab"},  {"c", "a"},  {"b", "b"},
                      {"bb", "c"}, {"abab", "c"}, {"ca", "b"}, {"b", "a"}};
  const ByteBpe model = make(merges);
  RandomStream random(3);
  for (int i = 0; i < 3000; ++i) {
    std::string word;
    for (std::int64_t n = random.integer(1, i % 10 == 0 ? 300 : 40); n > 0; --n)
      word.push_back(static_cast<char>('a' + random.integer(0, 3)));
    const Strings expected = slowly(merges, word);
    ASSERT_EQ(words(model, word), expected) << word;
    ASSERT_EQ(words(model, word), expected) << "from the cache: " << word;
  }
}

TEST(ByteBpe, AVeryLongWordTakesNoQuadraticTime) {
  // 2 million bytes without a space: minutes if every merge looked at all pairs
  EXPECT_EQ(make({{"a", "a"}, {"aa", "aa"}}).encode(std::string(2000001, 'a')).size(), 500001u);
}

TEST(ByteBpe, TokenizersDoNotShareCachedWords) {
  const ByteBpe joins = make({{"a", "b"}}), keeps = make({{"b", "a"}});
  EXPECT_EQ(words(joins, "ab"), Strings{"ab"});
  EXPECT_EQ(words(keeps, "ab"), (Strings{"a", "b"}));
  EXPECT_EQ(words(joins, "ab"), Strings{"ab"});
}

TEST(ByteBpe, SeveralThreadsAtOnceGetTheSameTokens) {
  const ByteBpe model = make({{"a", "b"}, {"ab", "c"}});
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (std::size_t i = 0; i < wrong.size(); ++i)
    threads.emplace_back([&, i] {
      for (int n = 0; n < 2000; ++n) wrong[i] += words(model, "abc ab") != Strings{"abc", "Ġ", "ab"};
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST(ByteBpe, APartOfACharacterHasThePlaceOfTheWholeOne) {
  EXPECT_EQ(places(make({}), "aé"), (std::vector<std::pair<int, int>>{{0, 1}, {1, 3}, {1, 3}}));
}

TEST(ByteBpe, APrefixSpaceIsPutBeforeTextThatHasNone) {
  ByteBpeOptions options;
  options.add_prefix_space = true;
  const ByteBpe model = make({{"Ġ", "a"}}, options, {{.content = "<s>"}});
  EXPECT_EQ(words(model, "a a"), (Strings{"Ġa", "Ġa"}));
  EXPECT_EQ(words(model, " a"), Strings{"Ġa"});
  EXPECT_EQ(words(model, "\na<s>a"), (Strings{"Ġ", "Ċ", "a", "<s>", "Ġa"}));
  EXPECT_EQ(places(model, "a<s>éa"),
            (std::vector<std::pair<int, int>>{{0, 1}, {1, 4}, {4, 6}, {4, 6}, {4, 6}, {6, 7}}));
}

TEST(ByteBpe, AddedTokensAreFoundAndSkipped) {
  const ByteBpe model =
      make({}, {}, {{.content = "<|endoftext|>"}, {.content = "<x>", .special = false, .normalized = true}});
  const auto ids = model.encode("a<|endoftext|>b<x>");
  EXPECT_EQ(ids, (std::vector<std::int32_t>{'a', 256, 'b', 257}));
  EXPECT_EQ(model.decode(ids, true), "ab<x>");
  EXPECT_EQ(model.decode(ids, false), "a<|endoftext|>b<x>");
}

TEST(ByteBpe, IgnoringMergesTakesWholeTokens) {
  const Merges merges{{"b", "c"}, {"a", "b"}};
  ByteBpeOptions options;
  options.ignore_merges = true;
  EXPECT_EQ(words(make(merges), "ab"), Strings{"ab"});
  TokenizerParts parts;
  Strings tokens = bytes_and(merges);
  tokens.push_back("abc");
  parts.tokens = TokenList(tokens);
  options.merges = merges;
  EXPECT_EQ(words(ByteBpe(parts, options), "abc abcd"), (Strings{"abc", "Ġ", "a", "bc", "d"}));
}

TEST(ByteBpe, BytesWithoutATokenAreUnknown) {
  TokenizerParts parts;
  parts.tokens = TokenList({"<unk>", "a", "b", "ab"});
  ByteBpeOptions options;
  options.merges = {{"a", "b"}};
  options.unknown = "<unk>";
  EXPECT_EQ(words(ByteBpe(parts, options), "abxya"), (Strings{"ab", "<unk>", "<unk>", "a"}));
  options.fuse_unknown = true;
  EXPECT_EQ(words(ByteBpe(parts, options), "abxya"), (Strings{"ab", "<unk>", "a"}));
}

TEST(ByteBpe, WhatWouldLoseTextIsRefused) {
  TokenizerParts parts;
  parts.tokens = TokenList({"a"});
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { ByteBpe(parts, {}); }),
                       "no token for byte 0x00 and no unknown token");
}

TEST(ByteBpe, MergesOfUnknownTokensAreRefused) {
  TokenizerParts parts;
  parts.tokens = TokenList(bytes_and({}));
  ByteBpeOptions options;
  options.merges = {{"a", "b"}};
  EXPECT_EQ(thrown<DataError>([&] { ByteBpe(parts, options); }),
            "merge 1 (`a` `b`) needs the token `ab`, which the vocabulary lacks");
}

TEST(ByteBpe, DecodingGivesValidTextFromCutCharacters) {
  const ByteBpe model = make({});
  EXPECT_EQ(model.decode(std::vector<std::int32_t>{'a', 0xC3, 0xA9}, true), "aé");
  EXPECT_EQ(model.decode(std::vector<std::int32_t>{'a', 0xC3}, true), "a\xEF\xBF\xBD");
}

TEST(ByteBpe, ATokenWithASpaceOrPunctuationBeginsAWord) {
  const ByteBpe model = make({{"Ġ", "a"}, {"a", "b"}}, {}, {{.content = "zz"}});
  EXPECT_TRUE(model.continues_word(*model.find("ab")));
  EXPECT_TRUE(model.continues_word(0xA9));  // inside of a character
  EXPECT_FALSE(model.continues_word(*model.find("Ġa")));
  EXPECT_FALSE(model.continues_word('.'));
  EXPECT_FALSE(model.continues_word('\n'));
  EXPECT_FALSE(model.continues_word(*model.find("zz")));
}

TEST(ByteBpe, SavedAndReadAgainItIsTheSame) {
  ByteBpeOptions options;
  options.add_prefix_space = true;
  const ByteBpe model = make({{"Ġ", "a"}, {"a", "b"}}, options, {{.content = "<mask>", .left_strip = true}});
  const TempDir folder;
  model.save(folder.path());
  const auto again = load_tokenizer(folder.path());
  EXPECT_EQ(again->kind(), "bpe");
  EXPECT_EQ(again->fingerprint(), model.fingerprint());
  EXPECT_EQ(again->encode("ab <mask>"), model.encode("ab <mask>"));
}

TEST(ByteBpe, FingerprintsTellApartWhatGivesOtherIds) {
  ByteBpeOptions spaced;
  spaced.add_prefix_space = true;
  const std::string whole = make({{"a", "b"}, {"b", "c"}}).fingerprint();
  EXPECT_EQ(make({{"a", "b"}, {"b", "c"}}).fingerprint(), whole);
  EXPECT_NE(make({{"b", "c"}, {"a", "b"}}).fingerprint(), whole);
  EXPECT_NE(make({{"a", "b"}, {"b", "c"}}, spaced).fingerprint(), whole);
}

}  // namespace
}  // namespace stoa::test
