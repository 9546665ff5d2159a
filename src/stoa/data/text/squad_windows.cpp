#include "stoa/data/text/squad_windows.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "stoa/base/errors.h"
#include "stoa/data/parallel.h"

namespace stoa {
namespace {

constexpr std::int64_t kMarks = 3;         // [CLS] question [SEP] context [SEP]
constexpr std::int64_t kTextsAtOnce = 64;  // that a thread takes
constexpr double kLengthBonus = 0.01;      // of a window, for each token it holds

void for_each_text(std::int64_t count, const std::function<void(std::int64_t)>& work) {
  for_each_parallel((count + kTextsAtOnce - 1) / kTextsAtOnce, [&](std::int64_t part) {
    for (auto i = part * kTextsAtOnce; i < std::min(count, (part + 1) * kTextsAtOnce); ++i) work(i);
  });
}

}  // namespace

SquadWindows::SquadWindows(SquadData data, std::shared_ptr<const Tokenizer> tokenizer,
                           const SquadWindowOptions& options)
    : data_(std::move(data)),
      options_(options),
      marks_(sequence_marks(*tokenizer)),
      questions_(data_.questions.size()),
      contexts_(data_.contexts.size()) {
  // a question leaves room for a stride of context at least
  const auto most = std::min(options.question_length, options.length - kMarks - 1);
  for_each_text(std::ssize(questions_), [&](std::int64_t i) {
    auto& ids = questions_[static_cast<std::size_t>(i)];
    tokenizer->encode(data_.questions[static_cast<std::size_t>(i)].text, ids);
    if (std::ssize(ids) > most) ids.resize(static_cast<std::size_t>(most));
  });
  for_each_text(std::ssize(contexts_), [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    contexts_[at] = tokenizer->tokens(data_.contexts[at]);
  });
  for (std::int64_t q = 0; q < std::ssize(data_.questions); ++q) {
    starts_.push_back(size());
    cut(q, windows_);
  }
  starts_.push_back(size());
}

void SquadWindows::cut(std::int64_t question, std::vector<SquadWindow>& windows) const {
  const auto& asked = data_.questions[static_cast<std::size_t>(question)];
  const auto tokens = std::ssize(contexts_[static_cast<std::size_t>(asked.context)]);
  const auto room = options_.length - kMarks - std::ssize(questions_[static_cast<std::size_t>(question)]);
  for (std::int64_t begin = 0;; begin += std::min(room, options_.stride)) {
    SquadWindow window{question, begin, std::min(room, tokens - begin), 0, 0};
    find_answer(window);
    windows.push_back(window);
    if (begin + window.count >= tokens) return;
  }
}

void SquadWindows::find_answer(SquadWindow& window) const {
  const auto& asked = data_.questions[static_cast<std::size_t>(window.question)];
  if (asked.impossible || asked.answers.empty()) return;
  const auto& answer = asked.answers.front();
  if (answer.begin < 0) return;
  const auto& tokens = contexts_[static_cast<std::size_t>(asked.context)];
  const auto first =
      std::ranges::partition_point(tokens, [&](const Token& token) { return token.end <= answer.begin; }) -
      tokens.begin();
  const auto last =
      std::ranges::partition_point(tokens, [&](const Token& token) { return token.begin < answer.end; }) -
      tokens.begin() - 1;
  if (last < first || first < window.begin || last >= window.begin + window.count) return;
  const auto before = context_place(window) - window.begin;
  window.first = before + first;
  window.last = before + last;
}

std::vector<std::int64_t> SquadWindows::trainable() const {
  std::vector<std::int64_t> numbers;
  for (std::int64_t n = 0; n < size(); ++n) {
    const auto& asked = data_.questions[static_cast<std::size_t>(window(n).question)];
    if (asked.impossible || (!asked.answers.empty() && asked.answers.front().begin >= 0))
      numbers.push_back(n);
  }
  if (numbers.empty()) throw DataError("SQuAD: no question has an answer to learn from");
  return numbers;
}

std::int64_t SquadWindows::context_place(const SquadWindow& window) const {
  return std::ssize(questions_[static_cast<std::size_t>(window.question)]) + 2;
}

const Token& SquadWindows::token(const SquadWindow& window, std::int64_t token) const {
  const auto& asked = data_.questions[static_cast<std::size_t>(window.question)];
  return contexts_[static_cast<std::size_t>(asked.context)].at(
      static_cast<std::size_t>(window.begin + token));
}

bool SquadWindows::best_window_of(std::int64_t number, std::int64_t token) const {
  const auto& own = window(number);
  const auto place = own.begin + token;
  const auto question = static_cast<std::size_t>(own.question);
  std::int64_t best = -1;
  double best_score = 0;
  for (auto n = starts_[question]; n < starts_[question + 1]; ++n) {
    const auto& other = window(n);
    if (place < other.begin || place >= other.begin + other.count) continue;
    const auto around = std::min(place - other.begin, other.begin + other.count - 1 - place);
    const double score = static_cast<double>(around) + kLengthBonus * static_cast<double>(other.count);
    if (best >= 0 && score <= best_score) continue;
    best = n;
    best_score = score;
  }
  return best == number;
}

std::int64_t SquadWindows::length(std::int64_t number) const {
  return context_place(window(number)) + window(number).count + 1;
}

Batch SquadWindows::batch(const std::vector<std::int64_t>& numbers) const {
  std::vector<TokenSequence> sequences;
  auto spans = at::empty({std::ssize(numbers), 2}, at::kLong);
  for (std::int64_t i = 0; i < std::ssize(numbers); ++i) {
    const auto& own = window(numbers[static_cast<std::size_t>(i)]);
    const auto& question = questions_[static_cast<std::size_t>(own.question)];
    std::vector<std::int32_t> part;
    for (std::int64_t t = 0; t < own.count; ++t) part.push_back(token(own, t).id);
    sequences.push_back(join_sequence(marks_, question, part, options_.length));
    spans.mutable_data_ptr<std::int64_t>()[2 * i] = own.first;
    spans.mutable_data_ptr<std::int64_t>()[2 * i + 1] = own.last;
  }
  std::vector<const TokenSequence*> pointers;
  for (const auto& sequence : sequences) pointers.push_back(&sequence);
  Batch batch = sequence_batch(pointers, marks_.pad);
  batch.tensors["spans"] = spans;
  batch.tensors["windows"] = at::tensor(numbers, at::kLong);
  return batch;
}

}  // namespace stoa
