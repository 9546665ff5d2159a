#include "stoa/data/text/sentences.h"

#include <gtest/gtest.h>

#include <string>

namespace stoa::test {
namespace {

using Sentences = std::vector<std::string_view>;

TEST(Sentences, EndBehindMarksBeforeACapital) {
  EXPECT_EQ(split_sentences("One. Two! Three? Four"), (Sentences{"One.", "Two!", "Three?", "Four"}));
  EXPECT_EQ(split_sentences("Really?! Yes... \"No.\" (Well.) 5 more."),
            (Sentences{"Really?!", "Yes...", "\"No.\"", "(Well.)", "5 more."}));
}

TEST(Sentences, GoOnBeforeASmallLetterAndWithoutSpace) {
  EXPECT_EQ(split_sentences("It cost 3.50 dollars. and more"), Sentences{"It cost 3.50 dollars. and more"});
  EXPECT_EQ(split_sentences("see www.example.org Now"), Sentences{"see www.example.org Now"});
}

TEST(Sentences, GoOnBehindInitialsAndAbbreviations) {
  EXPECT_EQ(split_sentences("Dr. J. Smith met Mrs. Jones, e.g. Anna. Then"),
            (Sentences{"Dr. J. Smith met Mrs. Jones, e.g. Anna.", "Then"}));
  EXPECT_EQ(split_sentences("So did I. Then he left."), (Sentences{"So did I.", "Then he left."}));
  EXPECT_EQ(split_sentences("Is it Dr.? Yes"), (Sentences{"Is it Dr.?", "Yes"}));
}

TEST(Sentences, OfTextWhoseMarksStandApart) {
  EXPECT_EQ(split_sentences(" He left . She stayed ! \n"), (Sentences{"He left .", "She stayed !"}));
}

TEST(Sentences, FullWidthMarksNeedNoSpace) {
  EXPECT_EQ(split_sentences("你好。世界！Ok"), (Sentences{"你好。", "世界！", "Ok"}));
}

TEST(Sentences, LoseNothingButSpace) {
  const std::string text = "A.B c. D e! f?? G “h.” I… J.";
  std::string kept, joined;
  for (const char c : text)
    if (c != ' ') kept += c;
  for (const auto sentence : split_sentences(text))
    for (const char c : sentence)
      if (c != ' ') joined += c;
  EXPECT_EQ(joined, kept);
}

TEST(Sentences, OfNothingAreNone) {
  EXPECT_TRUE(split_sentences("").empty());
  EXPECT_TRUE(split_sentences(" \t\r\n").empty());
}

}  // namespace
}  // namespace stoa::test
