#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stoa::metrics {

/// Whether an answer and the right one are alike (1) or not (0) once normalised as SQuAD's official program
/// does: lower case, without punctuation and articles, blanks as one.
double exact_match(std::string_view answer, std::string_view right);

/// F1 of the words that both have, counted as often as they occur; where one of them has no words, 1 if
/// neither has and 0 otherwise.
double token_f1(std::string_view answer, std::string_view right);

/// What was answered to one question, and what is right.
struct Answered {
  std::string answer;              ///< empty: that there is none
  std::vector<std::string> right;  ///< empty: there is no answer
  std::string best;                ///< the best answer that is not empty, and
  double no_answer = 0;            ///< how much likelier none is (any scale); for the best threshold alone
};

/// Scores of a set of questions as shares of 1. Each question's is the best over its right answers.
struct AnswerResults {
  std::int64_t questions = 0, with_answer = 0;
  double exact = 0, f1 = 0;
  double has_answer_exact = 0, has_answer_f1 = 0;  ///< of the questions that have an answer
  double no_answer = 0;                            ///< share right of those that have none; EM and F1 agree
  /// What the best threshold on `no_answer`, chosen on these very questions, would give.
  double best_exact = 0, best_f1 = 0, best_exact_threshold = 0, best_f1_threshold = 0;
};
AnswerResults score_answers(const std::vector<Answered>& questions);

}  // namespace stoa::metrics
