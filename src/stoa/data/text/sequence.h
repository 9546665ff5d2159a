#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "stoa/data/batch.h"
#include "stoa/data/text/tokenizer.h"

namespace stoa {

/// The tokens around and between sentences. A vocabulary without [CLS] and [SEP] lends its begin and end.
struct SequenceMarks {
  std::int32_t cls = 0, sep = 0;
  std::int32_t pad = 0;  ///< 0 where the vocabulary has none: padding is never computed on
};

/// Throws ConfigError for a tokenizer that has neither pair.
SequenceMarks sequence_marks(const Tokenizer& tokenizer);

/// [CLS] first [SEP], or [CLS] first [SEP] second [SEP].
struct TokenSequence {
  std::vector<std::int32_t> ids;
  std::int64_t second = 0;  ///< where the second sentence begins; ids.size() for none

  std::int64_t length() const { return static_cast<std::int64_t>(ids.size()); }
};

/// Puts one sentence into at most `length` tokens, marks counted: its end is cut off.
TokenSequence join_sequence(const SequenceMarks& marks, std::span<const std::int32_t> first,
                            std::int64_t length);
/// The same of two: the longer one loses its last token until both fit, the second where they are alike
/// (bamboo.md 2.12).
TokenSequence join_sequence(const SequenceMarks& marks, std::span<const std::int32_t> first,
                            std::span<const std::int32_t> second, std::int64_t length);

/// Sequences as one batch: "ids" and "segments" (0, then 1 from the second sentence on) [batch, longest]
/// int64, padded with `pad` and 0; "lengths" [batch] int64.
Batch sequence_batch(const std::vector<const TokenSequence*>& sequences, std::int32_t pad);

}  // namespace stoa
