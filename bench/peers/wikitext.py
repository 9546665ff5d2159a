"""Makes a folder with what the tokenizers are measured on: wikitext.txt (WikiText-2's test and validation text), BERT's
vocab.txt, and the bpe.json that the tests have.

The texts come from the folder of the test data: $STOA_TEST_DATA, ../shared/data beside the source tree, or .deps/data.
Usage: wikitext.py FOLDER
"""

import gzip
import os
import pathlib
import shutil
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS = ("text/wikitext2-test.txt.gz", "text/wikitext2-valid.txt.gz")
VOCABULARY = "bert/vocab.txt"


def find(name):
    places = [pathlib.Path(os.environ.get("STOA_TEST_DATA", ROOT / "../shared/data")), ROOT / ".deps/data"]
    for place in places:
        if (place / name).exists():
            return place / name
    sys.exit(f"no {name} below {' or '.join(str(place) for place in places)}; set STOA_TEST_DATA to the folder of the test data")


def main():
    folder = pathlib.Path(sys.argv[1])
    if folder.exists():
        return
    texts, vocabulary = [find(name) for name in TEXTS], find(VOCABULARY)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "wikitext.txt").write_bytes(b"".join(gzip.decompress(text.read_bytes()) for text in texts))
    shutil.copy(vocabulary, partial / "vocab.txt")
    shutil.copy(ROOT / "tests/data/text/shakespeare_bpe.json", partial / "bpe.json")
    partial.rename(folder)


if __name__ == "__main__":
    main()
