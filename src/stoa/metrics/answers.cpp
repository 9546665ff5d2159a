#include "stoa/metrics/answers.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "stoa/data/text/answer_words.h"

namespace stoa::metrics {
namespace {

struct Scores {
  double exact = 0, f1 = 0;
};

/// Right answers that have words; where none has, the right answer is none.
std::vector<std::string> with_words(const std::vector<std::string>& right) {
  std::vector<std::string> kept;
  for (const auto& text : right)
    if (!answer_words(text).empty()) kept.push_back(text);
  return kept;
}

Scores best_scores(std::string_view answer, const std::vector<std::string>& right) {
  Scores best;
  for (const auto& text : right.empty() ? std::vector<std::string>{""} : right) {
    best.exact = std::max(best.exact, exact_match(answer, text));
    best.f1 = std::max(best.f1, token_f1(answer, text));
  }
  return best;
}

struct Threshold {
  double score = 0, value = 0;
};

/// Of all thresholds on how much likelier no answer is, the one with the highest sum of scores; answers count
/// for questions at or below it.
Threshold best_threshold(const std::vector<Answered>& questions, const std::vector<bool>& has_answer,
                         const std::vector<double>& scores_of_best) {
  std::vector<std::size_t> order(questions.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return questions[i].no_answer; });
  double now = static_cast<double>(std::ranges::count(has_answer, false));
  Threshold best{now, 0};
  for (const auto i : order) {
    if (has_answer[i])
      now += scores_of_best[i];
    else if (!questions[i].best.empty())
      now -= 1;
    if (now > best.score) best = {now, questions[i].no_answer};
  }
  best.score /= std::max(static_cast<double>(questions.size()), 1.0);
  return best;
}

double share(double sum, std::int64_t count) {
  return count > 0 ? sum / static_cast<double>(count) : 0;
}

}  // namespace

double exact_match(std::string_view answer, std::string_view right) {
  return answer_words(answer) == answer_words(right) ? 1 : 0;
}

double token_f1(std::string_view answer, std::string_view right) {
  const auto ours = answer_words(answer), theirs = answer_words(right);
  if (ours.empty() || theirs.empty()) return ours.empty() && theirs.empty() ? 1 : 0;
  std::map<std::string, std::int64_t> left;
  for (const auto& word : theirs) ++left[word];
  std::int64_t common = 0;
  for (const auto& word : ours)
    if (const auto found = left.find(word); found != left.end() && found->second > 0) {
      --found->second;
      ++common;
    }
  return 2 * static_cast<double>(common) / static_cast<double>(ours.size() + theirs.size());
}

AnswerResults score_answers(const std::vector<Answered>& questions) {
  AnswerResults results;
  results.questions = std::ssize(questions);
  std::vector<bool> has_answer;
  std::vector<double> exact_of_best, f1_of_best;
  for (const auto& question : questions) {
    const auto right = with_words(question.right);
    const auto scores = best_scores(question.answer, right), of_best = best_scores(question.best, right);
    has_answer.push_back(!right.empty());
    exact_of_best.push_back(of_best.exact);
    f1_of_best.push_back(of_best.f1);
    results.exact += scores.exact;
    results.f1 += scores.f1;
    if (right.empty()) {
      results.no_answer += scores.exact;
    } else {
      ++results.with_answer;
      results.has_answer_exact += scores.exact;
      results.has_answer_f1 += scores.f1;
    }
  }
  const auto exact = best_threshold(questions, has_answer, exact_of_best);
  const auto f1 = best_threshold(questions, has_answer, f1_of_best);
  results.best_exact = exact.score;
  results.best_exact_threshold = exact.value;
  results.best_f1 = f1.score;
  results.best_f1_threshold = f1.value;
  results.exact = share(results.exact, results.questions);
  results.f1 = share(results.f1, results.questions);
  results.has_answer_exact = share(results.has_answer_exact, results.with_answer);
  results.has_answer_f1 = share(results.has_answer_f1, results.with_answer);
  results.no_answer = share(results.no_answer, results.questions - results.with_answer);
  return results;
}

}  // namespace stoa::metrics
