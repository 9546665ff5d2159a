#pragma once

#include <span>

namespace stoa::unicode_tables {

/// Code points from `first` to `last`, both included.
struct CodePointRun {
  char32_t first, last;
};

// Classes that decide ids, in runs that rise. They are those of Python's `tokenizers`, whatever version of
// Unicode the installed utf8proc has: a text must have the same ids everywhere.
extern constinit const std::span<const CodePointRun> kControls, kMarks, kCombining, kPunctuation, kLetters,
    kNumbers;

}  // namespace stoa::unicode_tables
