#include "stoa/tasks/answer_spans.h"

#include <gtest/gtest.h>

#include <cmath>

#include "stoa/base/errors.h"
#include "support/fake_tokenizer.h"
#include "support/thrown.h"

namespace stoa {
namespace {

/// One question, "q", about a context; windows of `room` tokens of it.
SquadWindows about(const std::string& context, std::int64_t room = 50, std::int64_t stride = 50) {
  SquadData data;
  data.contexts = {context};
  data.questions.push_back({"id", "q", 0, {}, false});
  return {std::move(data),
          std::make_shared<test::FakeTokenizer>(std::vector<std::string>{}),
          {room + 4, stride, 1}};
}

using Scores = std::vector<float>;
/// Scores of a window of [CLS] q [SEP] context [SEP]: of [CLS], and of the context's tokens.
Scores scores(float cls, const Scores& context) {
  Scores all = {cls, 99, 99};  // the question is no answer, however likely
  all.insert(all.end(), context.begin(), context.end());
  all.push_back(99);
  return all;
}

FoundAnswer found(const SquadWindows& windows, const Scores& first, const Scores& last,
                  const AnswerRules& rules = {}) {
  AnswerFinder finder(windows, rules);
  finder.add(0, first.data(), last.data());
  return finder.answer(0);
}

TEST(AnswerSpans, TheBestPairOfFirstAndLastIsCutFromTheContext) {
  const auto windows = about("It was  Paris, France.");
  // It was Paris , France .
  const auto answer = found(windows, scores(0, {0, 1, 5, 0, 4, 0}), scores(0, {0, 0, 2, 0, 4, 0}));
  EXPECT_EQ(answer.text, "Paris, France");
  EXPECT_EQ(answer.begin, 8);
  EXPECT_EQ(answer.best.front().score(), 9);
  EXPECT_EQ(answer.none_by, -9);
}

TEST(AnswerSpans, TheLastTokenIsNotBeforeTheFirst) {
  const auto windows = about("a b c");
  EXPECT_EQ(found(windows, scores(0, {0, 0, 9}), scores(0, {8, 1, 0})).text, "c");
}

TEST(AnswerSpans, AnswersHaveALargestLength) {
  const auto windows = about("a b c d");
  AnswerRules rules;
  rules.max_answer_length = 2;
  EXPECT_EQ(found(windows, scores(0, {9, 0, 0, 0}), scores(0, {0, 1, 2, 8}), rules).text, "a b");
}

TEST(AnswerSpans, OnlyTheBestTokensAreTried) {
  const auto windows = about("a b c");
  AnswerRules rules;
  rules.n_best = 1;
  const auto answer = found(windows, scores(0, {0, 9, 0}), scores(0, {5, 0, 0}), rules);
  EXPECT_TRUE(answer.best.empty());  // the one first is behind the one last
  EXPECT_EQ(answer.text, "");
}

TEST(AnswerSpans, NoneIsAnsweredWhereItIsAllowedAndLikelierByTheThreshold) {
  const auto windows = about("a b");
  AnswerRules rules;
  const auto first = scores(3, {2, 0}), last = scores(3, {2, 0});
  EXPECT_EQ(found(windows, first, last, rules).text, "a");
  rules.may_be_none = true;
  EXPECT_EQ(found(windows, first, last, rules).text, "");
  EXPECT_EQ(found(windows, first, last, rules).none_by, 2);
  rules.null_threshold = 2;
  EXPECT_EQ(found(windows, first, last, rules).text, "a");
}

TEST(AnswerSpans, ProbabilitiesAreAmongTheBestAnswersAndNone) {
  const auto windows = about("a b");
  AnswerRules rules;
  rules.may_be_none = true;
  const auto answer = found(windows, scores(0.5F, {2, 0}), scores(0.5F, {1, 0}), rules);
  // a: 3, a b: 2, b: 0, none: 1
  const double sum = std::exp(3) + std::exp(2) + std::exp(0) + std::exp(1);
  ASSERT_EQ(answer.best.size(), 3u);
  EXPECT_NEAR(answer.probability, std::exp(3) / sum, 1e-12);
  EXPECT_NEAR(answer.best[1].probability, std::exp(2) / sum, 1e-12);
}

TEST(AnswerSpans, TheSameTextIsKeptOnce) {
  const auto windows = about("x y x");
  const auto answer = found(windows, scores(0, {5, -9, 4}), scores(0, {5, -9, 4}));
  EXPECT_EQ(answer.best.size(), 5u);  // x, x y, x y x, y and y x
  EXPECT_EQ(answer.begin, 0);
}

TEST(AnswerSpans, OfSeveralWindowsTheBestSpanAndTheLeastNone) {
  const auto windows = about("a b c d e f", 4, 2);
  ASSERT_EQ(windows.size(), 2);
  AnswerFinder finder(windows, {});
  const auto first = scores(5, {0, 0, 0, 0}), last = scores(4, {0, 0, 1, 0});
  const auto second_first = scores(-1, {9, 0, 0, 3}), second_last = scores(-2, {9, 0, 0, 3});
  finder.add(0, first.data(), last.data());
  finder.add(1, second_first.data(), second_last.data());
  const auto answer = finder.answer(0);
  // c has as much around it in both windows and so belongs to the first: its 9 in the second does not count
  EXPECT_EQ(answer.text, "f");
  EXPECT_EQ(answer.none_by, -3 - 6);
}

TEST(AnswerSpans, ScoresThatAreNoNumbersAreRefused) {
  const auto windows = about("a b");
  STOA_EXPECT_CONTAINS(test::thrown<NumericError>([&] {
                         found(windows, scores(0, {0, std::nanf("")}), scores(0, {0, 0}));
                       }),
                       "the scores of question `id` are not finite");
}

TEST(AnswerSpans, CodePointsStayWhole) {
  SquadData data;
  data.contexts = {"aé"};
  data.questions.push_back({"id", "q", 0, {}, false});
  const SquadWindows windows(std::move(data), load_tokenizer("bytes"), {20, 5, 1});
  AnswerFinder finder(windows, {});
  // of bytes a, C3, A9 the first two
  const Scores first = {0, 0, 0, 9, 0, 0, 0}, last = {0, 0, 0, 0, 9, 0, 0};
  finder.add(0, first.data(), last.data());
  EXPECT_EQ(finder.answer(0).text, "aé");
}

}  // namespace
}  // namespace stoa
