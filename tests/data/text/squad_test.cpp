#include "stoa/data/text/squad.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "stoa/base/json.h"
#include "support/click_files.h"
#include "support/thrown.h"

namespace stoa {
namespace {

Json question(const std::string& id, const std::string& text, std::int64_t start) {
  return {{"id", id},
          {"question", "Which?"},
          {"answers", Json::array({{{"text", text}, {"answer_start", start}}})}};
}

Json document(const std::string& context, const Json& questions) {
  return {
      {"version", "1.1"},
      {"data", Json::array({{{"title", "T"},
                             {"paragraphs", Json::array({{{"context", context}, {"qas", questions}}})}}})}};
}

SquadData parsed(const Json& json) {
  return parse_squad(json.dump(), "squad.json");
}

std::string refused(const Json& json) {
  return test::thrown<DataError>([&] { parsed(json); });
}

TEST(Squad, AnswersBeginAtCodePointsNotBytes) {
  // é and 日 take 2 and 3 bytes, the sign behind them 4
  const std::string context = "é日\U0001F600 the answer";
  const auto data = parsed(document(context, Json::array({question("q", "answer", 8)})));
  ASSERT_EQ(data.questions.size(), 1u);
  const auto& answer = data.questions[0].answers.at(0);
  EXPECT_EQ(answer.begin, 2 + 3 + 4 + 5);
  EXPECT_EQ(answer.end, answer.begin + 6);
  EXPECT_EQ(data.moved + data.lost, 0);
}

TEST(Squad, AnswersALittleOffAreMovedAndOthersAreLost) {
  const auto data = parsed(
      document("one two three",
               Json::array({question("a", "two", 3), question("b", "two", 6), question("c", "two", 9)})));
  EXPECT_EQ(data.moved, 2);
  EXPECT_EQ(data.lost, 1);
  EXPECT_EQ(data.questions[1].answers[0].begin, 4);
  EXPECT_EQ(data.questions[2].answers[0].begin, -1);
}

TEST(Squad, ImpossibleQuestionsHaveNoAnswer) {
  auto asked = question("a", "two", 4);
  asked["is_impossible"] = true;
  asked["plausible_answers"] = asked["answers"];
  auto unknown = question("b", "two", 4);
  unknown.erase("answers");
  const auto data = parsed(document("one two", Json::array({asked, unknown})));
  EXPECT_TRUE(data.questions[0].impossible);
  EXPECT_TRUE(data.questions[0].answers.empty());
  EXPECT_FALSE(data.questions[1].impossible);
}

TEST(Squad, PlacesOutsideTheContextAreRefused) {
  for (const Json& start : {Json(7), Json(-1), Json(18446744073709551615u), Json(1.5), Json("4")}) {
    auto asked = question("q7", "two", 0);
    asked["answers"][0]["answer_start"] = start;
    STOA_EXPECT_CONTAINS(refused(document("one two", Json::array({asked}))), "squad.json, question `q7`: ");
  }
  STOA_EXPECT_CONTAINS(refused(document("one two", Json::array({question("q", "o", 7)}))),
                       "the answer begins at character 7 of a context of 7");
}

TEST(Squad, WhatIsMissingOrOfAnotherKindIsRefused) {
  EXPECT_EQ(refused(Json{{"version", "1.1"}}), "squad.json: `data` is missing");
  STOA_EXPECT_CONTAINS(refused(Json{{"data", 3}}), "`data` is number; a list is needed");
  STOA_EXPECT_CONTAINS(refused(Json{{"data", Json::array({1})}}), "article 1: number where a JSON object");
  STOA_EXPECT_CONTAINS(refused(document("", Json::array({question("q", "x", 0)}))), "of a context of 0");
  auto asked = question("q", "two", 4);
  asked["question"] = nullptr;
  STOA_EXPECT_CONTAINS(refused(document("one two", Json::array({asked}))),
                       "`question` is null; text is needed");
  const auto twice = Json::array({question("q", "two", 4), question("q", "one", 0)});
  STOA_EXPECT_CONTAINS(refused(document("one two", twice)), "question `q`: its id is used twice");
  STOA_EXPECT_CONTAINS(refused(document("one two", Json::array())), "there are no questions");
  asked = question("q", "two", 4);
  asked["is_impossible"] = "no";
  STOA_EXPECT_CONTAINS(refused(document("one two", Json::array({asked}))), "`is_impossible` is string");
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([] { parse_squad("{\"data\": [", "cut.json"); }),
                       "cut.json: not valid JSON at byte 11");
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([] { parse_squad(std::string(100'000, '['), "deep.json"); }),
                       "nested deeper");
}

TEST(Squad, FilesMayBePacked) {
  const test::TempDir folder;
  test::write_gzip(folder / "dev.json.gz",
                   document("one two", Json::array({question("q", "two", 4)})).dump());
  EXPECT_EQ(read_squad(folder / "dev.json.gz").questions.size(), 1u);
}

TEST(Questions, AreLinesOfFieldsOrObjectsOrADocument) {
  const auto lines = parse_questions(
      "Who?\tHe did.\n{\"question\": \"Why?\", \"context\": \"So\\nit is.\", "
      "\"id\": \"x\"}\n",
      "lines");
  ASSERT_EQ(lines.questions.size(), 2u);
  EXPECT_EQ(lines.questions[0].id, "0");
  EXPECT_EQ(lines.contexts[0], "He did.");
  EXPECT_EQ(lines.questions[1].id, "x");
  EXPECT_EQ(lines.contexts[1], "So\nit is.");
  const auto whole = document("one two", Json::array({question("q", "two", 4)}));
  EXPECT_EQ(parse_questions(whole.dump(), "f").questions[0].id, "q");
  EXPECT_EQ(parse_questions(whole.dump(2), "f").questions[0].id, "q");
}

TEST(Questions, WhatDoesNotFitIsRefusedWithItsLine) {
  const auto refused_text = [](const std::string& text) {
    return test::thrown<DataError>([&] { parse_questions(text, "lines"); });
  };
  STOA_EXPECT_CONTAINS(refused_text("a\tb\nwho\n"), "lines, line 2: 1 fields between tabs");
  EXPECT_EQ(refused_text(" \tb\n"), "lines, line 1: the question is empty");
  EXPECT_EQ(refused_text("a\t\n"), "lines, line 1: the context is empty");
  EXPECT_EQ(refused_text(""), "lines: there are no questions");
  EXPECT_EQ(refused_text("{\"question\": \"a\"}\n"), "lines, line 1: `context` is missing");
}

}  // namespace
}  // namespace stoa
