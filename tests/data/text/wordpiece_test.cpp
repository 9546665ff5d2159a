#include "stoa/data/text/wordpiece.h"

#include <gtest/gtest.h>

#include <thread>

#include "stoa/base/errors.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

using Strings = std::vector<std::string>;

Strings vocabulary() {
  return {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un",  "##aff", "##able", "aff",
          "the",   "##s",   "cafe",  "i",     "do",     "don", "'",     "t",      ".",
          "##t",   "中",    "文",    "e",     "##l",    "a",   "[",     "]"};
}

WordPiece make(WordPieceOptions options = {}, std::vector<AddedToken> more = {},
               Strings tokens = vocabulary()) {
  TokenizerParts parts;
  for (std::int32_t id = 0; id < 5; ++id)
    parts.added.push_back({.content = tokens.at(static_cast<std::size_t>(id)), .id = id});
  for (AddedToken& token : more) {
    token.id = static_cast<std::int32_t>(tokens.size());
    token.of_model = false;
    tokens.push_back(token.content);
    parts.added.push_back(token);
  }
  parts.tokens = TokenList(std::move(tokens));
  parts.special = {.pad = 0, .unknown = 1, .cls = 2, .sep = 3, .mask = 4};
  return WordPiece(std::move(parts), std::move(options));
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

TEST(WordPiece, TakesTheLongestTokensOneAfterTheOther) {
  EXPECT_EQ(words(make(), "unaffable"), (Strings{"un", "##aff", "##able"}));
  EXPECT_EQ(words(make(), "affs the"), (Strings{"aff", "##s", "the"}));
}

TEST(WordPiece, AWordThatCannotBeSpelledIsUnknownAsAWhole) {
  EXPECT_EQ(words(make(), "unaffx the xs"), (Strings{"[UNK]", "the", "[UNK]"}));
}

TEST(WordPiece, LowerCasesAndStripsAccents) {
  EXPECT_EQ(words(make(), "UN CAF\xC3\x89 Cafe\xCC\x81"), (Strings{"un", "cafe", "cafe"}));
}

TEST(WordPiece, CasedKeepsCaseAndAccents) {
  WordPieceOptions options;
  options.normalizer.lowercase = options.normalizer.strip_accents = false;
  EXPECT_EQ(words(make(options), "the The caf\xC3\xA9"), (Strings{"the", "[UNK]", "[UNK]"}));
}

TEST(WordPiece, SplitsAtPunctuationAndAroundIdeographs) {
  EXPECT_EQ(words(make(), "don't.the"), (Strings{"don", "'", "t", ".", "the"}));
  EXPECT_EQ(words(make(), "the中文the"), (Strings{"the", "中", "文", "the"}));
}

TEST(WordPiece, ControlsVanishAndSpacesOfAllKindsSplit) {
  EXPECT_EQ(words(make(), std::string_view("t\0he th\xE2\x80\x8B"
                                           "e\t\xE3\x80\x80un\xC2\xA0i",
                                           22)),
            (Strings{"the", "the", "un", "i"}));
}

TEST(WordPiece, PlacesAreThoseInTheOriginalText) {
  // the accent is a mark of its own; what is stripped counts to no token
  EXPECT_EQ(places(make(), " Cafe\xCC\x81s unaffable"),
            (std::vector<std::pair<int, int>>{{1, 5}, {7, 8}, {9, 11}, {11, 14}, {14, 18}}));
  EXPECT_EQ(places(make(), "中文"), (std::vector<std::pair<int, int>>{{0, 3}, {3, 6}}));
}

TEST(WordPiece, AWordAsLongAsAllowedIsCutAndALongerOneIsUnknown) {
  WordPieceOptions options;
  options.longest_word = 4;
  const WordPiece model = make(options);
  EXPECT_EQ(words(model, "cafe cafes"), (Strings{"cafe", "[UNK]"}));
  EXPECT_EQ(places(model, "cafe cafess."), (std::vector<std::pair<int, int>>{{0, 4}, {5, 11}, {11, 12}}));
  EXPECT_EQ(words(make(), "t" + std::string(99, 's')).size(), 100u);
  EXPECT_EQ(words(make(), "t" + std::string(100, 's')), Strings{"[UNK]"});
}

TEST(WordPiece, SpecialTokensInTheTextAreFound) {
  EXPECT_EQ(words(make(), "the[MASK].[CLS]"), (Strings{"the", "[MASK]", ".", "[CLS]"}));
  EXPECT_EQ(words(make(), "[mask]"), (Strings{"[", "[UNK]", "]"}));  // as they are written alone
  EXPECT_EQ(words(make(), "[MASK"), (Strings{"[", "[UNK]"}));
}

TEST(WordPiece, AddedTokensTakeTheSpaceBesideThem) {
  const WordPiece model = make({}, {{.content = "<x>", .left_strip = true, .right_strip = true}});
  EXPECT_EQ(places(model, "the  <x> \t <x>the"),
            (std::vector<std::pair<int, int>>{{0, 3}, {3, 11}, {11, 14}, {14, 17}}));
}

TEST(WordPiece, AddedTokensOfSingleWordsAreNotFoundInside) {
  const WordPiece model = make({}, {{.content = "the", .single_word = true}, {.content = "##x"}}, [] {
    Strings tokens = vocabulary();
    tokens[9] = "they";
    return tokens;
  }());
  EXPECT_EQ(words(model, "the they thes"), (Strings{"the", "they", "[UNK]"}));
}

TEST(WordPiece, NormalizedAddedTokensAreFoundInNormalisedText) {
  const WordPiece model = make({}, {{.content = "Caf\xC3\xA9 The", .special = false, .normalized = true}});
  EXPECT_EQ(words(model, "un CAFE\tth\xC3\xA8 i"), (Strings{"un", "Caf\xC3\xA9 The", "i"}));
  EXPECT_EQ(places(model, "un CAFE\tth\xC3\xA8 i")[1], std::pair(3, 12));
  EXPECT_EQ(model.decode(std::vector<std::int32_t>{26}, true), "cafe the");
}

TEST(WordPiece, TokensThatAreOnlyAddedAreNoPartsOfWords) {
  const WordPiece model = make({}, {{.content = "thex", .single_word = true}});
  EXPECT_EQ(words(model, "thexs"), Strings{"[UNK]"});
}

TEST(WordPiece, LeftmostThenLongestAddedTokenCounts) {
  const WordPiece model = make({}, {{.content = "ab"}, {.content = "abc"}, {.content = "bcd"}});
  EXPECT_EQ(words(model, "abcd"), (Strings{"abc", "[UNK]"}));
}

TEST(WordPiece, BrokenTextReadsAsReplaced) {
  EXPECT_EQ(words(make(), "the\xFF the"), (Strings{"the", "the"}));  // cleaning drops U+FFFD
  EXPECT_EQ(places(make(), "the\xFF un"), (std::vector<std::pair<int, int>>{{0, 3}, {5, 7}}));
}

TEST(WordPiece, EmptyTextHasNoTokens) {
  EXPECT_TRUE(make().encode("").empty());
  EXPECT_TRUE(make().encode(" \n").empty());
}

TEST(WordPiece, DecodingJoinsPiecesAndPunctuation) {
  const WordPiece model = make();
  EXPECT_EQ(model.decode(model.encode("the unaffable. don't"), true), "the unaffable. don ' t");
  const std::vector<std::int32_t> ids{2, 9, 4, 17, 3};
  EXPECT_EQ(model.decode(ids, true), "the.");
  EXPECT_EQ(model.decode(ids, false), "[CLS] the [MASK]. [SEP]");
  EXPECT_EQ(thrown<DataError>([&] { model.decode(std::vector<std::int32_t>{26}, true); }),
            "token id 26 is outside of the vocabulary; ids run from 0 to 25");
  EXPECT_NE(thrown<DataError>([&] { model.decode(std::vector<std::int32_t>{-1}, true); }), "");
}

TEST(WordPiece, OnlyPiecesWithThePrefixContinueAWord) {
  const WordPiece model = make();
  EXPECT_TRUE(model.continues_word(*model.find("##s")));
  EXPECT_FALSE(model.continues_word(*model.find("the")));
  EXPECT_FALSE(model.continues_word(4));
  EXPECT_NE(thrown<DataError>([&] { model.continues_word(99); }), "");
}

TEST(WordPiece, SavedAndReadAgainItIsTheSame) {
  const WordPiece model =
      make({}, {{.content = "Caf\xC3\xA9", .special = false, .single_word = true, .normalized = true}});
  const TempDir folder;
  model.save(folder.path());
  const auto again = load_tokenizer(folder.path());
  EXPECT_EQ(again->fingerprint(), model.fingerprint());
  EXPECT_EQ(again->size(), model.size());
  EXPECT_EQ(again->special().mask, 4);
  const auto plain = load_tokenizer(folder / "vocab.txt");  // with the configuration beside it
  EXPECT_EQ(plain->fingerprint(), model.fingerprint());
}

TEST(WordPiece, FingerprintsTellApartWhatGivesOtherIds) {
  const std::string whole = make().fingerprint();
  WordPieceOptions cased, longer;
  cased.normalizer.lowercase = false;
  longer.longest_word = 200;
  Strings swapped = vocabulary();
  std::swap(swapped[8], swapped[9]);
  EXPECT_EQ(whole.size(), 16u);
  EXPECT_EQ(make().fingerprint(), whole);
  EXPECT_NE(make(cased).fingerprint(), whole);
  EXPECT_NE(make(longer).fingerprint(), whole);
  EXPECT_NE(make({}, {}, swapped).fingerprint(), whole);
  EXPECT_NE(make({}, {{.content = "x"}}).fingerprint(),
            make({}, {{.content = "x", .left_strip = true}}).fingerprint());
}

TEST(WordPiece, WithoutItsUnknownTokenItIsRefused) {
  WordPieceOptions options;
  options.unknown = "<unk>";
  EXPECT_EQ(thrown<DataError>([&] { make(options); }),
            "the vocabulary has no `<unk>`, which WordPiece gives for unknown words");
}

TEST(WordPiece, SeveralThreadsAtOnceGetTheSameTokens) {
  const WordPiece model = make();
  const auto expected = model.encode("unaffable the caf\xC3\xA9s");
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (std::size_t i = 0; i < wrong.size(); ++i)
    threads.emplace_back([&, i] {
      for (int n = 0; n < 2000; ++n) wrong[i] += model.encode("unaffable the caf\xC3\xA9s") != expected;
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

}  // namespace
}  // namespace stoa::test
