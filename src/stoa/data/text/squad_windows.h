#pragma once

#include <cstdint>
#include <vector>

#include "stoa/data/batch.h"
#include "stoa/data/text/sequence.h"
#include "stoa/data/text/squad.h"
#include "stoa/data/text/tokenizer.h"

namespace stoa {

/// How long contexts are cut.
struct SquadWindowOptions {
  std::int64_t length = 384;          ///< tokens of a window, question and marks counted
  std::int64_t stride = 128;          ///< tokens between the beginnings of windows
  std::int64_t question_length = 64;  ///< tokens that are kept of a question
};

/// Part of a context, as it is read after its question: [CLS] question [SEP] part [SEP].
struct SquadWindow {
  std::int64_t question = 0;
  std::int64_t begin = 0, count = 0;  ///< tokens of the context
  std::int64_t first = 0,
               last = 0;  ///< places of the answer's end tokens; both 0, [CLS], where it is not here
};

/// The windows of all questions, in order. Tokenises in parallel.
class SquadWindows {
 public:
  SquadWindows(SquadData data, std::shared_ptr<const Tokenizer> tokenizer, const SquadWindowOptions& options);

  const SquadData& data() const { return data_; }
  std::int64_t size() const { return std::ssize(windows_); }
  const SquadWindow& window(std::int64_t number) const { return windows_[static_cast<std::size_t>(number)]; }
  /// Windows of question q: from starts()[q] to starts()[q + 1] - 1.
  const std::vector<std::int64_t>& starts() const { return starts_; }
  /// Numbers of the windows to train on: of questions that are marked as having no answer, or whose answer is
  /// known. Throws DataError where there are none.
  std::vector<std::int64_t> trainable() const;

  /// Place within a window of the context's first token.
  std::int64_t context_place(const SquadWindow& window) const;
  /// Bytes of the context that a token of a window stands for; `token` counts the window's context from 0.
  const Token& token(const SquadWindow& window, std::int64_t token) const;
  /// Whether, of all windows that hold the token, this is the one in which it has most context on both sides.
  bool best_window_of(std::int64_t number, std::int64_t token) const;

  /// "ids", "segments", "lengths" as sequence_batch() makes them; "spans" [batch, 2] int64: the answer's
  /// first and last place; "windows" [batch] int64: their numbers.
  Batch batch(const std::vector<std::int64_t>& numbers) const;
  std::int64_t length(std::int64_t number) const;

 private:
  void cut(std::int64_t question, std::vector<SquadWindow>& windows) const;
  void find_answer(SquadWindow& window) const;

  SquadData data_;
  SquadWindowOptions options_;
  SequenceMarks marks_;
  std::vector<std::vector<std::int32_t>> questions_;
  std::vector<std::vector<Token>> contexts_;
  std::vector<SquadWindow> windows_;
  std::vector<std::int64_t> starts_;
};

}  // namespace stoa
