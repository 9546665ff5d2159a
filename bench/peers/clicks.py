"""Makes a raw click log of Criteo's form: FILE, ROWS rows of a label, 13 whole numbers and 26 ids of 8 hexadecimal digits.

Ids follow power laws over vocabularies of Criteo's sizes; two numbers in five and a few ids are missing, as there. About
240 bytes a row. Usage: clicks.py FILE ROWS
"""

import os
import sys

import numpy

from harness.works import CRITEO

DIGITS = numpy.frombuffer(b"0123456789abcdef", numpy.uint8)
MISSING = b"ffffffff"  # written, then taken out
AT_ONCE = 100_000


def hexadecimal(generator, rows):
    """[rows, 26 * 9] bytes: ids and the tabs before them."""
    text = numpy.full((rows, len(CRITEO), 9), ord("\t"), numpy.uint8)
    for field, size in enumerate(CRITEO):
        low, high = 10**-0.1, (size + 10) ** -0.1
        rank = numpy.minimum((low + generator.random(rows) * (high - low)) ** -10 - 10, size - 1).astype(numpy.uint64)
        ids = (rank + numpy.uint64(field << 24)) * numpy.uint64(2654435761) % numpy.uint64(0xfffffffb)
        for digit in range(8):
            text[:, field, digit + 1] = DIGITS[(ids >> numpy.uint64(28 - 4 * digit)) & numpy.uint64(15)]
        text[generator.random(rows) < 0.03, field, 1:] = numpy.frombuffer(MISSING, numpy.uint8)
    return text.reshape(rows, -1)


def lines(generator, rows):
    labels = (generator.random(rows) < 0.256).astype(int)
    numbers = numpy.minimum(generator.exponential(1, (rows, 13)) ** 4 * 20, 1e6).astype(int)
    texts = numpy.where(generator.random((rows, 13)) < 0.4, "", numbers.astype(str))
    ids = hexadecimal(generator, rows)
    text = b"".join(b"%d\t%b%b\n" % (label, "\t".join(row).encode(), own.tobytes())
                    for label, row, own in zip(labels, texts, ids))
    return text.replace(MISSING, b"")


def main():
    file, rows = sys.argv[1], int(sys.argv[2])
    if os.path.exists(file):
        return
    generator = numpy.random.default_rng(1)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    with open(file + ".partial", "wb") as out:
        for begin in range(0, rows, AT_ONCE):
            out.write(lines(generator, min(AT_ONCE, rows - begin)))
    os.rename(file + ".partial", file)


if __name__ == "__main__":
    main()
