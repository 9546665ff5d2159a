#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "stoa/data/text/squad_windows.h"

namespace stoa {

/// Bytes [begin, end) of a context as an answer, with the scores of its first and its last token.
struct AnswerSpan {
  std::int64_t begin = 0, end = 0;
  double first_score = 0, last_score = 0;
  double probability = 0;  ///< among the best spans of its question and, where it is allowed, no answer

  double score() const { return first_score + last_score; }
};

/// How spans are chosen.
struct AnswerRules {
  std::int64_t n_best = 20;  ///< first and last tokens that are tried of a window, spans kept of a question
  std::int64_t max_answer_length = 30;  ///< tokens
  bool may_be_none = false;             ///< a question may have no answer (SQuAD 2.0)
  double null_threshold = 0;            ///< none is answered where it is likelier by more than this
};

/// The answer to one question.
struct FoundAnswer {
  std::string text;         ///< empty for none
  std::int64_t begin = -1;  ///< byte of the context; -1 for none
  double probability = 0;
  double none_by = 0;            ///< score of no answer less that of the best span
  std::vector<AnswerSpan> best;  ///< spans of unlike texts, the best first
};

/// Chooses answers from the scores of windows: spans begin with one of the best first tokens and end with one
/// of the best last ones; a token that is in several windows begins spans in that one alone where it has most
/// context. No answer scores the least that any window gives its [CLS] (as BERT's program has it).
class AnswerFinder {
 public:
  AnswerFinder(const SquadWindows& windows, const AnswerRules& rules);

  /// Scores of being first and last of each token of a window, [CLS] at 0. Throws NumericError where one is
  /// not finite.
  void add(std::int64_t window, const float* first, const float* last);
  /// Once all windows of the question were added.
  FoundAnswer answer(std::int64_t question) const;
  /// Text of a span of the question's context, without blanks around it.
  std::string text(std::int64_t question, const AnswerSpan& span) const;

 private:
  const SquadWindows& windows_;
  AnswerRules rules_;
  std::vector<std::vector<AnswerSpan>> spans_;  // of each question, the best
  std::vector<double> none_;
};

}  // namespace stoa
