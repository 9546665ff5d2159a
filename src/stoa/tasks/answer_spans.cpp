#include "stoa/tasks/answer_spans.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/text/sentences.h"

namespace stoa {
namespace {

/// Places of the highest scores, the highest first; the earlier of two that are alike.
std::vector<std::int64_t> highest(const float* scores, std::int64_t count, std::int64_t wanted) {
  std::vector<std::int64_t> places(static_cast<std::size_t>(count));
  std::iota(places.begin(), places.end(), 0);
  const auto kept = std::min(count, wanted);
  std::partial_sort(places.begin(), places.begin() + kept, places.end(), [&](auto a, auto b) {
    return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
  });
  places.resize(static_cast<std::size_t>(kept));
  return places;
}

bool better(const AnswerSpan& a, const AnswerSpan& b) {
  if (a.score() != b.score()) return a.score() > b.score();
  return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
}

void keep_best(std::vector<AnswerSpan>& spans, std::int64_t count) {
  std::ranges::sort(spans, better);
  if (std::ssize(spans) > count) spans.resize(static_cast<std::size_t>(count));
}

bool inside_code_point(std::string_view text, std::int64_t at) {
  return at < std::ssize(text) &&
         (static_cast<unsigned char>(text[static_cast<std::size_t>(at)]) & 0xC0) == 0x80;
}

}  // namespace

AnswerFinder::AnswerFinder(const SquadWindows& windows, const AnswerRules& rules)
    : windows_(windows),
      rules_(rules),
      spans_(windows.data().questions.size()),
      none_(spans_.size(), std::numeric_limits<double>::infinity()) {}

void AnswerFinder::add(std::int64_t number, const float* first, const float* last) {
  const auto& window = windows_.window(number);
  const auto question = static_cast<std::size_t>(window.question);
  const auto finite = [&](const float* scores) {
    return std::all_of(scores, scores + windows_.length(number),
                       [](float score) { return std::isfinite(score); });
  };
  if (!finite(first) || !finite(last))
    throw NumericError(format("the scores of question `{}` are not finite; the model has diverged",
                              windows_.data().questions[question].id));
  none_[question] = std::min(none_[question], static_cast<double>(first[0]) + last[0]);
  const auto before = windows_.context_place(window);
  auto& spans = spans_[question];
  const auto ends = highest(last + before, window.count, rules_.n_best);
  for (const auto begin : highest(first + before, window.count, rules_.n_best)) {
    if (!windows_.best_window_of(number, begin)) continue;
    for (const auto end : ends) {
      if (end < begin || end - begin >= rules_.max_answer_length) continue;
      spans.push_back({windows_.token(window, begin).begin, windows_.token(window, end).end,
                       first[before + begin], last[before + end], 0});
    }
  }
  // twice as many as are wanted, since some may have the same text
  if (std::ssize(spans) > 2 * rules_.n_best) keep_best(spans, 2 * rules_.n_best);
}

std::string AnswerFinder::text(std::int64_t question, const AnswerSpan& span) const {
  const auto& asked = windows_.data().questions[static_cast<std::size_t>(question)];
  const std::string_view context = windows_.data().contexts[static_cast<std::size_t>(asked.context)];
  auto begin = span.begin, end = span.end;  // tokens of bytes may part a code point
  while (begin > 0 && inside_code_point(context, begin)) --begin;
  while (inside_code_point(context, end)) ++end;
  if (end <= begin) return {};
  return std::string(without_outer_space(
      context.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin))));
}

FoundAnswer AnswerFinder::answer(std::int64_t question) const {
  FoundAnswer found;
  const double none = none_[static_cast<std::size_t>(question)];
  auto spans = spans_[static_cast<std::size_t>(question)];
  keep_best(spans, std::ssize(spans));
  std::set<std::string> texts;
  for (const auto& span : spans) {
    auto own = text(question, span);
    if (own.empty() || std::ssize(found.best) >= rules_.n_best || !texts.insert(own).second) continue;
    found.best.push_back(span);
  }
  const double top = found.best.empty() ? none : found.best.front().score();
  found.none_by = none - top;
  const double highest_score = rules_.may_be_none ? std::max(top, none) : top;
  double sum = rules_.may_be_none || found.best.empty() ? std::exp(none - highest_score) : 0;
  for (const auto& span : found.best) sum += std::exp(span.score() - highest_score);
  for (auto& span : found.best) span.probability = std::exp(span.score() - highest_score) / sum;
  if (found.best.empty() || (rules_.may_be_none && found.none_by > rules_.null_threshold)) {
    found.probability = std::exp(none - highest_score) / sum;
    return found;
  }
  found.text = text(question, found.best.front());
  found.begin = found.best.front().begin;
  found.probability = found.best.front().probability;
  return found;
}

}  // namespace stoa
