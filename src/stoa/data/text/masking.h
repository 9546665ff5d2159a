#pragma once

#include <cstdint>
#include <span>

#include "stoa/base/random.h"
#include "stoa/data/text/options.h"
#include "stoa/data/text/tokenizer.h"

namespace stoa {

/// The target of a place where nothing is asked.
inline constexpr std::int64_t kNoTarget = -100;

/// How many of a sequence's `length` tokens, special ones counted, are asked for:
/// min(most, max(1, length * share rounded half to even)) (bamboo.md 2.12).
std::int64_t masked_count(std::int64_t length, const MaskingOptions& options);

/// Chooses tokens of a sequence, hides or changes them, and writes those that were there to `targets` (as
/// long as `ids`; kNoTarget elsewhere). Separators and other special tokens are never chosen, the unknown one
/// may be. Words are what Tokenizer::continues_word() joins; one that would go beyond the count is passed
/// over. Throws ConfigError for a vocabulary without a mask token.
void mask_tokens(std::span<std::int32_t> ids, const Tokenizer& tokenizer, const MaskingOptions& options,
                 RandomStream& random, std::span<std::int64_t> targets);

}  // namespace stoa
