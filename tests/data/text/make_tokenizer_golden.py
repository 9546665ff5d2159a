#!/usr/bin/env python3
"""Writes what tokenizer_golden_test.cpp holds Stoa's tokenizers to: ids, places and decoded text of Python's `tokenizers`.

Usage: python3 make_tokenizer_golden.py DATA    DATA: the folder of the test data (bert/vocab.txt, text/, glue/, clotho/)

Needs `tokenizers` (0.23.3 when the record was made). Writes beside itself: shakespeare_bpe.json and
shakespeare_wordpiece.txt, small vocabularies trained on Shakespeare (public domain), and tokenizer_golden.json, CRC-32s of
the answers. The first two are only trained anew where they are missing.

Random texts: 100 blocks of 1,000, all drawn from one SplitMix64 stream with seed 2026 whose next number modulo n is `draw(n)`;
RandomText below and random_text.h draw in the same order. Of each text the CRC of its block goes on over little-endian
32-bit numbers: count of tokens, then id, begin and end (bytes of the text) of each; then the bytes of the decoded text with
special tokens. In files every line, without its end, is a text.
"""
import gzip
import json
import pathlib
import struct
import sys
import zlib

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tokenizers.implementations import BertWordPieceTokenizer

HERE = pathlib.Path(__file__).parent
FILES = ["text/tinyshakespeare.txt.gz", "text/wikitext2-valid.txt.gz", "text/wikitext2-test.txt.gz", "glue/CoLA/train.tsv",
         "glue/CoLA/dev.tsv", "glue/RTE/train.tsv", "glue/RTE/dev.tsv", "glue/SST-2/train.tsv.gz", "glue/SST-2/dev.tsv",
         "clotho/clotho_captions_development.csv.gz", "clotho/clotho_captions_evaluation.csv"]
BLOCKS, TEXTS = 100, 1000

# first and last code point; a text draws from all of them or from three
RANGES = [(0x20, 0x7E), (0x61, 0x7A), (0x20, 0x20), (0x00, 0x7F), (0x80, 0x7FF), (0xC0, 0x24F), (0x300, 0x36F),
          (0x370, 0x5FF), (0x800, 0xFFFF), (0x1E00, 0x206F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
          (0xE000, 0xF8FF), (0xF900, 0xFAFF), (0x1F300, 0x1FAFF), (0x10000, 0x10FFFF), (0x1D15E, 0x1D1BF)]
SPECIAL = [0x130, 0x344, 0x302E, 0x302F, 0x1E9E, 0xFFFD, 0x200B, 0x200D, 0xAD, 0x85, 0x2028, 0x3000, 0x345, 0x334, 0x323,
           0x301, 0xFEFF, 0x37E, 0x1FEF, 0x2126, 0xFB1D, 0x1B44, 0x16FF0, 0x11938, 0x1DF6, 0x10D50, 0xA7CB, 0x166D]
WORDS = ["[MASK]", "[CLS]", "[UNK]", "[unk]", "hello", "Don't", "'s", "'ll", "'RE", "<|endoftext|>", "  ", "\n"]


class RandomText:
    def __init__(self, seed):
        self.state = seed

    def draw(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & (2**64 - 1)
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        return (z ^ (z >> 31)) % n

    def point(self, chosen):
        kind = chosen[self.draw(len(chosen))] if chosen else self.draw(len(RANGES))
        first, last = RANGES[kind]
        point = first + self.draw(last - first + 1)
        return 0xD7FF if 0xD800 <= point < 0xE000 else point

    def next(self):
        chosen = [self.draw(len(RANGES)) for _ in range(3)] if self.draw(2) else []
        text = bytearray()
        for _ in range(self.draw([8, 24, 60][self.draw(3)])):
            what = self.draw(32)
            if what == 0:
                text += WORDS[self.draw(len(WORDS))].encode()
            elif what == 1:
                text += chr(SPECIAL[self.draw(len(SPECIAL))]).encode()
            elif what < 6:
                text += b" "
            else:
                text += chr(self.point(chosen)).encode()
        if self.draw(8) == 0:  # broken: bytes altered, left out, put in
            for _ in range(1 + self.draw(3)):
                if not text:
                    break
                at, how, byte = self.draw(len(text)), self.draw(3), 0x80 + self.draw(0x80)
                if how == 0:
                    text[at] = byte
                elif how == 1:
                    del text[at]
                else:
                    text.insert(at, byte)
        return bytes(text)


def broken_length(raw, at):
    """Bytes of the maximal broken part at `at`, as Unicode and Python count it."""
    length = 1
    while length < 3 and at + length < len(raw):
        try:
            raw[at:at + length + 1].decode()
            return length
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data" or error.start != 0:
                return length
        length += 1
    return length


def read(raw):
    """The text, and the byte at which each of its characters begins, with the end."""
    text, starts, at = raw.decode("utf-8", errors="replace"), [], 0
    for c in text:
        starts.append(at)
        whole = c != "\ufffd" or raw[at:at + 3] == b"\xef\xbf\xbd"
        at += len(c.encode()) if whole else broken_length(raw, at)
    assert at == len(raw), raw
    return text, starts + [at]


def answer(tokenizer, raw, crc):
    text, starts = read(raw)
    found = tokenizer.encode(text, add_special_tokens=False)
    numbers = [len(found.ids)]
    for token, (begin, end) in zip(found.ids, found.offsets):
        numbers += [token, starts[begin], starts[end]]
    decoded = tokenizer.decode(found.ids, skip_special_tokens=False)
    return zlib.crc32(decoded.encode(), zlib.crc32(struct.pack(f"<{len(numbers)}i", *numbers), crc))


def lines(file):
    raw = gzip.open(file).read() if file.suffix == ".gz" else file.read_bytes()
    return raw.split(b"\n")


def train(data):
    shakespeare = [line.decode() for line in lines(data / "text/tinyshakespeare.txt.gz")]
    bpe = HERE / "shakespeare_bpe.json"
    if not bpe.exists():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.train_from_iterator(shakespeare, trainers.BpeTrainer(
            vocab_size=1100, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False))
        bpe.write_text(json.dumps(json.loads(tokenizer.to_str()), separators=(",", ":"), ensure_ascii=False) + "\n")
    wordpiece = HERE / "shakespeare_wordpiece.txt"
    if not wordpiece.exists():
        tokenizer = BertWordPieceTokenizer(lowercase=True)
        tokenizer.train_from_iterator(shakespeare, vocab_size=700, limit_alphabet=80, show_progress=False)
        by_id = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        wordpiece.write_text("".join(token + "\n" for token, _ in by_id))
    return bpe, wordpiece


def main():
    data = pathlib.Path(sys.argv[1])
    bpe, wordpiece = train(data)
    bert = str(data / "bert/vocab.txt")
    tokenizers = {"shakespeare_bpe": Tokenizer.from_file(str(bpe)),
                  "shakespeare_wordpiece": BertWordPieceTokenizer(str(wordpiece), lowercase=True),
                  "bert_uncased": BertWordPieceTokenizer(bert, lowercase=True),
                  "bert_cased": BertWordPieceTokenizer(bert, lowercase=False)}
    tokenizers["shakespeare_bpe"].post_processor = processors.ByteLevel(trim_offsets=False)
    random = RandomText(2026)
    blocks = [[random.next() for _ in range(TEXTS)] for _ in range(BLOCKS)]
    record = {}
    for name, tokenizer in tokenizers.items():
        entry = record[name] = {"random": [], "files": {}}
        for block in blocks:
            crc = 0
            for raw in block:
                crc = answer(tokenizer, raw, crc)
            entry["random"].append(f"{crc:08x}")
        for file in FILES:
            crc = 0
            for raw in lines(data / file):
                crc = answer(tokenizer, raw, crc)
            entry["files"][file] = f"{crc:08x}"
    texts = 0
    for block in blocks:
        for raw in block:
            texts = zlib.crc32(raw, texts)
    out = {"texts": f"{texts:08x}", "tokenizers": record}
    (HERE / "tokenizer_golden.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
