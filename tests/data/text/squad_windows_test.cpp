#include "stoa/data/text/squad_windows.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/fake_tokenizer.h"
#include "support/thrown.h"

namespace stoa {
namespace {

/// Words w0 w1 ... of ids 5, 6 ...
std::shared_ptr<const Tokenizer> tokenizer() {
  std::vector<std::string> words;
  for (int i = 0; i < 40; ++i) words.push_back("w" + std::to_string(i));
  return std::make_shared<test::FakeTokenizer>(words);
}

std::string words(int first, int count) {
  std::string text;
  for (int i = first; i < first + count; ++i) text += (text.empty() ? "w" : " w") + std::to_string(i);
  return text;
}

/// One question about words w0 to w(count - 1), whose answer is some of them.
SquadData one_question(int count, const std::string& answer) {
  SquadData data;
  data.contexts = {words(0, count)};
  SquadQuestion question{"q", "w30 w31", 0, {}, false};
  const auto begin = static_cast<std::int64_t>(data.contexts[0].find(answer));
  question.answers.push_back({answer, begin, begin + std::ssize(answer)});
  data.questions.push_back(question);
  return data;
}

SquadWindows cut(SquadData data, std::int64_t length, std::int64_t stride, std::int64_t question = 64) {
  return {std::move(data), tokenizer(), {length, stride, question}};
}

TEST(SquadWindows, AShortContextIsOneWindow) {
  const auto windows = cut(one_question(4, "w2"), 20, 5);
  ASSERT_EQ(windows.size(), 1);
  EXPECT_EQ(windows.starts(), (std::vector<std::int64_t>{0, 1}));
  const auto batch = windows.batch({0});
  // [CLS] w30 w31 [SEP] w0 w1 w2 w3 [SEP]
  EXPECT_TRUE(batch["ids"].equal(at::tensor({2, 35, 36, 3, 5, 6, 7, 8, 3}, at::kLong).unsqueeze(0)));
  EXPECT_TRUE(batch["segments"].equal(at::tensor({0, 0, 0, 0, 1, 1, 1, 1, 1}, at::kLong).unsqueeze(0)));
  EXPECT_TRUE(batch["spans"].equal(at::tensor({6, 6}, at::kLong).unsqueeze(0)));
  EXPECT_EQ(windows.length(0), 9);
}

TEST(SquadWindows, LongContextsAreCutByTheStride) {
  // 5 tokens of context fit beside the question and the marks
  const auto windows = cut(one_question(12, "w6 w7"), 10, 3);
  ASSERT_EQ(windows.size(), 4);
  for (std::int64_t n = 0; n < 4; ++n) {
    EXPECT_EQ(windows.window(n).begin, 3 * n);
    EXPECT_EQ(windows.window(n).count, n < 3 ? 5 : 3);
  }
}

TEST(SquadWindows, TheAnswerIsSoughtWhereAllOfItIs) {
  const auto windows = cut(one_question(12, "w6 w7"), 10, 3);
  const auto spans = windows.batch({0, 1, 2, 3})["spans"];
  // of [CLS] w30 w31 [SEP] w3 w4 w5 w6 w7 [SEP] and [CLS] w30 w31 [SEP] w6 w7 ...; else [CLS]
  EXPECT_TRUE(spans.equal(at::tensor({0, 0, 7, 8, 4, 5, 0, 0}, at::kLong).view({4, 2})));
  EXPECT_TRUE(cut(one_question(12, "w4 w5"), 10, 3)
                  .batch({0})["spans"]
                  .equal(at::zeros({1, 2}, at::kLong)));  // its last word is in the next window
}

TEST(SquadWindows, AnAnswerWithinAWordTakesTheWholeWord) {
  auto data = one_question(4, "w2");
  data.questions[0].answers[0] = {"2", data.questions[0].answers[0].begin + 1,
                                  data.questions[0].answers[0].begin + 2};
  EXPECT_TRUE(
      cut(std::move(data), 20, 5).batch({0})["spans"].equal(at::tensor({6, 6}, at::kLong).unsqueeze(0)));
}

TEST(SquadWindows, QuestionsAreCutToTheirLength) {
  auto data = one_question(3, "w0");
  data.questions[0].text = words(20, 9);
  const auto windows = cut(std::move(data), 20, 5, 4);
  EXPECT_EQ(windows.context_place(windows.window(0)), 6);
  EXPECT_EQ(windows.length(0), 4 + 3 + 3);
}

TEST(SquadWindows, ATokenBelongsToTheWindowWithMostAroundIt) {
  const auto windows = cut(one_question(12, "w6"), 10, 3);
  // w4 is the last of window 0 and the second of window 1; w3 is in the middle of neither
  EXPECT_FALSE(windows.best_window_of(0, 4));
  EXPECT_TRUE(windows.best_window_of(1, 1));
  EXPECT_TRUE(windows.best_window_of(0, 3));
  EXPECT_FALSE(windows.best_window_of(1, 0));
  // each token belongs to one window
  for (std::int64_t token = 0; token < 12; ++token) {
    int owners = 0;
    for (std::int64_t n = 0; n < windows.size(); ++n) {
      const auto within = token - windows.window(n).begin;
      if (within >= 0 && within < windows.window(n).count)
        owners += windows.best_window_of(n, within) ? 1 : 0;
    }
    EXPECT_EQ(owners, 1) << token;
  }
}

TEST(SquadWindows, QuestionsOfUnknownAnswerAreNotTrainedOn) {
  auto data = one_question(4, "w2");
  auto asked = data.questions[0];
  asked.id = "lost";
  asked.answers[0].begin = asked.answers[0].end = -1;
  data.questions.push_back(asked);
  asked.id = "unknown";
  asked.answers.clear();
  data.questions.push_back(asked);
  asked.id = "none";
  asked.impossible = true;
  data.questions.push_back(asked);
  const auto windows = cut(std::move(data), 20, 5);
  EXPECT_EQ(windows.trainable(), (std::vector<std::int64_t>{0, 3}));
  EXPECT_TRUE(windows.batch({3})["spans"].equal(at::zeros({1, 2}, at::kLong)));
}

TEST(SquadWindows, WithoutAnyAnswerThereIsNothingToLearn) {
  auto data = one_question(4, "w2");
  data.questions[0].answers.clear();
  const auto windows = cut(std::move(data), 20, 5);
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { windows.trainable(); }), "no question has an answer");
}

}  // namespace
}  // namespace stoa
