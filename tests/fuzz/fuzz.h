#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "stoa/base/errors.h"

// What the libFuzzer targets share: a reader may refuse its input with an Error and do nothing else wrong.
namespace stoa::fuzz {

using Bytes = std::span<const std::uint8_t>;

/// Runs `work`; the errors that Stoa reports to its users are a right answer.
template <class Work>
void refusing(const Work& work) {
  try {
    work();
  } catch (const Error&) {
  }
}

/// Reads every byte, so that the sanitizer sees one that lies outside.
inline void touch(Bytes bytes) {
  std::uint8_t sum = 0;
  for (const std::uint8_t byte : bytes) sum = static_cast<std::uint8_t>(sum + byte);
  volatile std::uint8_t kept = sum;
  (void)kept;
}

/// Ends with a finding unless `holds`.
inline void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace stoa::fuzz
