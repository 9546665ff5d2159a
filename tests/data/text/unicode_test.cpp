#include "stoa/data/text/unicode.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa::unicode {
namespace {

using test::thrown;

std::vector<char32_t> decomposed(char32_t point) {
  std::vector<char32_t> parts;
  decompose(point, parts);
  return parts;
}

TEST(Utf8, EveryCodePointIsReadAsItWasWritten) {
  for (char32_t point = 0; point < 0x110000; ++point) {
    if (point >= 0xD800 && point < 0xE000) continue;
    char bytes[4];
    const int count = put(point, bytes);
    const char* at = bytes;
    ASSERT_EQ(next(at), point);
    ASSERT_EQ(at - bytes, count);
    ASSERT_EQ(last_before(bytes + count), point);
    ASSERT_EQ(valid_prefix({bytes, static_cast<std::size_t>(count)}), static_cast<std::size_t>(count));
  }
}

TEST(Utf8, WhatIsNoCodePointIsBroken) {
  for (const std::string text :
       {"\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\x80", "\xE2\x82", "\xF0\x9F\x98"})
    EXPECT_EQ(valid_prefix("ab" + text), 2u) << testing::PrintToString(text);
}

TEST(Utf8, EachMaximalBrokenPartIsOneReplacement) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(repaired("a\xF0\x9F\x98z"), "a" + r + "z");             // a sequence cut short
  EXPECT_EQ(repaired("\xE2\x82\xE2\x82\xAC"), r + "\xE2\x82\xAC");  // and then a whole one
  EXPECT_EQ(repaired("\xED\xA0\x80"), r + r + r);                   // a surrogate
  EXPECT_EQ(repaired("\xC0\xAF\x80"), r + r + r);
  EXPECT_EQ(repaired("\xF4\x8F\xBF"), r);
  EXPECT_EQ(repaired("12345678\xFF"
                     "12345678"),
            "12345678" + r + "12345678");
}

TEST(ValidText, WholeTextIsNotCopied) {
  const std::string text = "na\xC3\xAFve";
  EXPECT_EQ(ValidText(text, BrokenUtf8::kRefuse).view().data(), text.data());
}

TEST(ValidText, BrokenTextIsRefusedWithItsPlace) {
  EXPECT_EQ(thrown<DataError>([] { ValidText("ab\xFFz", BrokenUtf8::kRefuse); }),
            "byte 2 (0xff) is not UTF-8; convert the text, or let broken parts be replaced");
}

TEST(ValidText, PlacesAreThoseOfTheBrokenText) {
  const ValidText text(
      "a\xFF"
      "b\xE2\x82"
      "c",
      BrokenUtf8::kReplace);
  EXPECT_EQ(text.view(),
            "a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD"
            "c");
  std::vector<Token> tokens{{0, 0, 1}, {0, 1, 4}, {0, 4, 5}, {0, 5, 8}, {0, 8, 9}, {0, 0, 9}};
  text.restore(tokens);
  const std::vector<std::pair<int, int>> expected{{0, 1}, {1, 2}, {2, 3}, {3, 5}, {5, 6}, {0, 6}};
  for (std::size_t i = 0; i < tokens.size(); ++i)
    EXPECT_EQ(std::pair(tokens[i].begin, tokens[i].end), expected[i]) << i;
}

TEST(Classes, AreThoseThatBertAndGpt2GoBy) {
  EXPECT_EQ(classes('a'), kLetter);
  EXPECT_EQ(classes('7'), kNumber);
  EXPECT_EQ(classes('$'), kPunctuation);  // a symbol, but BERT splits at all of ASCII's
  EXPECT_EQ(classes('\t'), kSpace);       // a control, but not dropped as one
  EXPECT_EQ(classes('\v'), kSpace | kControl);
  EXPECT_EQ(classes(0xB2), kNumber);  // superscript two
  EXPECT_EQ(classes(0x20AC), 0);      // the euro sign is none of them
  EXPECT_EQ(classes(0x4E2D), kLetter | kIdeograph);
  EXPECT_EQ(classes(0x301), kMark | kCombining);
  EXPECT_EQ(classes(0x200B), kControl);
  EXPECT_EQ(classes(0x3000), kSpace);
  EXPECT_EQ(classes(0x2E5D), 0);  // punctuation since Unicode 14 alone
  EXPECT_EQ(classes(0x378), 0);   // unassigned
}

TEST(Lower, IsFullUnicode) {
  EXPECT_EQ(lower(U'Ä'), U'ä');
  EXPECT_EQ(lower(0x3A3), 0x3C3u);      // final sigma is not looked for
  EXPECT_EQ(lower(0x1E9E), 0xDFu);      // capital sharp s
  EXPECT_EQ(lower(0x10D50), 0x10D70u);  // newer than utf8proc may be
  EXPECT_EQ(lower(0x4E2D), 0x4E2Du);
}

TEST(Decompose, IsCanonicalAndFull) {
  EXPECT_EQ(decomposed(0xE9), (std::vector<char32_t>{'e', 0x301}));
  EXPECT_EQ(decomposed(0x1E69), (std::vector<char32_t>{'s', 0x323, 0x307}));
  EXPECT_EQ(decomposed(0xAC01), (std::vector<char32_t>{0x1100, 0x1161, 0x11A8}));
  EXPECT_EQ(decomposed(0xFB01), (std::vector<char32_t>{0xFB01}));    // a ligature is compatible only
  EXPECT_EQ(decomposed(0x11938), (std::vector<char32_t>{0x11938}));  // newer than `tokenizers` knows
}

TEST(WordCharacter, IsThatOfRegularExpressions) {
  for (const char32_t point :
       {U'a', U'_', U'9', U'é', U'中', char32_t{0x301}, char32_t{0x200D}, char32_t{0x24B6}})
    EXPECT_TRUE(is_word_character(point)) << static_cast<unsigned>(point);
  for (const char32_t point : {U' ', U'-', U'.', char32_t{0x20AC}, char32_t{0xB2}})
    EXPECT_FALSE(is_word_character(point)) << static_cast<unsigned>(point);
}

}  // namespace
}  // namespace stoa::unicode
