#include "stoa/metrics/answers.h"

#include <gtest/gtest.h>

#include "stoa/data/text/answer_words.h"

namespace stoa::metrics {
namespace {

using Words = std::vector<std::string>;

TEST(AnswerWords, CasePunctuationArticlesAndBlanksDoNotCount) {
  EXPECT_EQ(answer_words("  The  Cat's\tmeow,\nan A! "), (Words{"cats", "meow"}));
  EXPECT_EQ(answer_words("a-the"), (Words{"athe"}));  // the sign goes first, so no article stands alone
  EXPECT_EQ(answer_words("theatre an-other"), (Words{"theatre", "another"}));
  EXPECT_TRUE(answer_words("The a an ...").empty());
}

TEST(AnswerWords, OfOtherScripts) {
  EXPECT_EQ(answer_words("ÉCOLE Ærø"), (Words{"école", "ærø"}));
  EXPECT_EQ(answer_words("the–end"), (Words{"–end"}));  // a dash that is not ASCII stays, and parts words
  EXPECT_EQ(answer_words("théa"), (Words{"théa"}));     // no article: a letter touches it
  EXPECT_EQ(answer_words("x\u00a0y\u3000z"), (Words{"x", "y", "z"}));
  EXPECT_EQ(answer_words("x\xffy"), (Words{"x\ufffdy"}));
}

TEST(ExactMatch, ComparesNormalisedText) {
  EXPECT_EQ(exact_match("the Norman dynasty.", "Norman Dynasty"), 1);
  EXPECT_EQ(exact_match("Norman", "Norman Dynasty"), 0);
}

TEST(TokenF1, CountsSharedWordsAsOftenAsBothHaveThem) {
  // 2 shared of 3 and of 4
  EXPECT_DOUBLE_EQ(token_f1("x x y", "x x z w"), 2.0 * 2 / 7);
  EXPECT_DOUBLE_EQ(token_f1("x x x", "x"), 2.0 / 4);
  EXPECT_EQ(token_f1("x", "y"), 0);
}

TEST(TokenF1, WithoutWordsIsOneOnlyForBoth) {
  EXPECT_EQ(token_f1("", ""), 1);
  EXPECT_EQ(token_f1("the", ""), 1);
  EXPECT_EQ(token_f1("", "x"), 0);
  EXPECT_EQ(token_f1("x", ""), 0);
}

TEST(ScoreAnswers, TakesTheBestRightAnswerAndTheMeanOfQuestions) {
  const auto results = score_answers({{"red house", {"blue barn", "the red house", "red"}, "", 0},
                                      {"house", {"red house", "barn"}, "", 0},
                                      {"sky", {"sea"}, "", 0}});
  EXPECT_EQ(results.questions, 3);
  EXPECT_DOUBLE_EQ(results.exact, 1.0 / 3);
  EXPECT_DOUBLE_EQ(results.f1, (1 + 2.0 / 3) / 3);
}

TEST(ScoreAnswers, TellsQuestionsWithAnAnswerFromThoseWithout) {
  const auto results = score_answers({{"red", {"red"}, "red", 0},
                                      {"", {"red house"}, "red", 0},
                                      {"", {}, "sky", 0},
                                      {"sea", {}, "sea", 0},
                                      {"", {"the"}, "", 0}});  // an answer without words is none
  EXPECT_EQ(results.with_answer, 2);
  EXPECT_DOUBLE_EQ(results.has_answer_exact, 0.5);
  EXPECT_DOUBLE_EQ(results.has_answer_f1, 0.5);
  EXPECT_DOUBLE_EQ(results.no_answer, 2.0 / 3);
  EXPECT_DOUBLE_EQ(results.f1, 3.0 / 5);
}

TEST(ScoreAnswers, FindsTheBestThresholdOnNoAnswer) {
  // by rising likelihood of none: right, right, wrong (there is none), half right
  const std::vector<Answered> questions = {
      {"", {"a1"}, "a1", -3}, {"", {"b1"}, "b1", -1}, {"", {}, "c1", 0.5}, {"", {"d1 d2 d3"}, "d1", 2}};
  const auto results = score_answers(questions);
  EXPECT_DOUBLE_EQ(results.f1, 1.0 / 4);
  EXPECT_DOUBLE_EQ(results.best_f1, 3.0 / 4);  // answers up to -1, none from there on
  EXPECT_EQ(results.best_f1_threshold, -1);
  EXPECT_DOUBLE_EQ(results.best_exact, 3.0 / 4);
}

TEST(ScoreAnswers, OfNoQuestionsIsZero) {
  EXPECT_EQ(score_answers({}).f1, 0);
}

}  // namespace
}  // namespace stoa::metrics
