#include "stoa/data/text/sequence.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa {
namespace {

void append(std::vector<std::int32_t>& ids, std::span<const std::int32_t> more, std::int64_t count) {
  ids.insert(ids.end(), more.begin(), more.begin() + count);
}

}  // namespace

SequenceMarks sequence_marks(const Tokenizer& tokenizer) {
  const auto& special = tokenizer.special();
  SequenceMarks marks{special.cls, special.sep, std::max(special.pad, 0)};
  if (marks.cls < 0 || marks.sep < 0) {
    marks.cls = special.begin >= 0 ? special.begin : special.end;
    marks.sep = special.end;
  }
  if (marks.cls < 0 || marks.sep < 0)
    throw ConfigError(
        format("the tokenizer ({}, {} tokens) has neither [CLS] and [SEP] nor an end of text; sentences need "
               "one of them around them",
               tokenizer.kind(), tokenizer.size()));
  return marks;
}

TokenSequence join_sequence(const SequenceMarks& marks, std::span<const std::int32_t> first,
                            std::int64_t length) {
  const auto kept = std::clamp<std::int64_t>(length - 2, 0, std::ssize(first));
  TokenSequence sequence;
  sequence.ids.reserve(static_cast<std::size_t>(kept + 2));
  sequence.ids.push_back(marks.cls);
  append(sequence.ids, first, kept);
  sequence.ids.push_back(marks.sep);
  sequence.second = sequence.length();
  return sequence;
}

TokenSequence join_sequence(const SequenceMarks& marks, std::span<const std::int32_t> first,
                            std::span<const std::int32_t> second, std::int64_t length) {
  const auto room = std::max<std::int64_t>(length - 3, 0);
  std::int64_t a = std::ssize(first), b = std::ssize(second);
  if (a + b > room) {
    // token by token from the longer one: the shorter keeps all it has up to half of the room
    const auto half = room / 2;
    if (b <= half)
      a = room - b;
    else if (a <= room - half)
      b = room - a;
    else
      a = room - half, b = half;
  }
  TokenSequence sequence;
  sequence.ids.reserve(static_cast<std::size_t>(a + b + 3));
  sequence.ids.push_back(marks.cls);
  append(sequence.ids, first, a);
  sequence.ids.push_back(marks.sep);
  sequence.second = sequence.length();
  append(sequence.ids, second, b);
  sequence.ids.push_back(marks.sep);
  return sequence;
}

Batch sequence_batch(const std::vector<const TokenSequence*>& sequences, std::int32_t pad) {
  const auto count = std::ssize(sequences);
  std::int64_t longest = 1;
  for (const auto* sequence : sequences) longest = std::max(longest, sequence->length());
  auto ids = at::full({count, longest}, pad, at::kLong), segments = at::zeros({count, longest}, at::kLong);
  auto lengths = at::empty({count}, at::kLong);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto& sequence = *sequences[static_cast<std::size_t>(i)];
    std::ranges::copy(sequence.ids, ids.mutable_data_ptr<std::int64_t>() + i * longest);
    auto* const segment = segments.mutable_data_ptr<std::int64_t>() + i * longest;
    std::fill(segment + sequence.second, segment + sequence.length(), 1);
    lengths.mutable_data_ptr<std::int64_t>()[i] = sequence.length();
  }
  Batch batch;
  batch.samples = count;
  batch.tensors = {{"ids", ids}, {"segments", segments}, {"lengths", lengths}};
  return batch;
}

}  // namespace stoa
