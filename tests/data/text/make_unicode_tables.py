#!/usr/bin/env python3
"""Writes src/stoa/data/text/unicode_tables.cpp: classes of code points as Python's `tokenizers` has them.

Usage: python3 make_unicode_tables.py > src/stoa/data/text/unicode_tables.cpp

The classes are asked of `tokenizers` (0.23.3 when the file was made), one code point at a time, because its parts go by
different versions of Unicode: 8 for controls, marks and punctuation of BERT, 9 for the order of combining marks, 16 for the
letters and numbers of GPT-2's pattern. Vocabularies were made with just these classes, so ids must come from them too.
"""
from tokenizers import normalizers, pre_tokenizers


def normalizer(clean=False, accents=False):
    return normalizers.BertNormalizer(clean_text=clean, handle_chinese_chars=False, strip_accents=accents, lowercase=False)


CLEAN, STRIP, NFD = normalizer(clean=True), normalizer(accents=True), normalizers.NFD()
BERT, BYTES = pre_tokenizers.BertPreTokenizer(), pre_tokenizers.ByteLevel(add_prefix_space=False)


def words(text):
    return len(BYTES.pre_tokenize_str(text))


def is_control(c):
    return c not in "\0\ufffd" and CLEAN.normalize_str(c) == ""


def is_mark(c):
    return STRIP.normalize_str(c) == "" and NFD.normalize_str(c) == c


def is_combining(c):
    """Whether canonical order may move it: its combining class is not 0."""
    swapped = NFD.normalize_str("a\u0345" + c) != "a\u0345" + NFD.normalize_str(c)
    return NFD.normalize_str(c) == c and (swapped or c in "\u0345\u0334")


def is_punctuation(c):
    return len(BERT.pre_tokenize_str("a" + c + "b")) == 3


def is_letter(c):
    return words("a" + c) == 1


def is_number(c):
    return not is_letter(c) and words("1" + c) == 1


def runs(holds):
    """First and last of every run of code points for which `holds`."""
    found = []
    for point in range(0x110000):
        if not 0xD800 <= point < 0xE000 and holds(chr(point)):
            if found and found[-1][1] == point - 1:
                found[-1][1] = point
            else:
                found.append([point, point])
    return found


def main():
    print("// Made by tests/data/text/make_unicode_tables.py. Do not edit.")
    print('#include "stoa/data/text/unicode_tables.h"\n\n// clang-format off\nnamespace stoa::unicode_tables {')
    for name, holds in [("kControls", is_control), ("kMarks", is_mark), ("kCombining", is_combining),
                        ("kPunctuation", is_punctuation), ("kLetters", is_letter), ("kNumbers", is_number)]:
        found = runs(holds)
        print(f"\nstatic constexpr CodePointRun {name}Runs[] = {{")
        line = ""
        for first, last in found:
            item = f"{{0x{first:X}, 0x{last:X}}}, "
            if len(line) + len(item) > 130:
                print("    " + line.rstrip())
                line = ""
            line += item
        print("    " + line.rstrip(", ") + "};")
        print(f"constinit const std::span<const CodePointRun> {name} = {name}Runs;")
    print("\n}  // namespace stoa::unicode_tables")


if __name__ == "__main__":
    main()
