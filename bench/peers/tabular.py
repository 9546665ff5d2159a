"""A raw Criteo file as users turn it into columns of ids with pandas or polars, and scikit-learn's AUC.

The same as ours: every value an id by its place in sorted order, numbers scaled to 0..1, one file a column.
"""

import pathlib
import shutil
import tempfile

import numpy
import torch

NUMBERS = [f"I{i}" for i in range(1, 14)]
IDS = [f"C{i}" for i in range(1, 27)]


class Prepare:
    def __init__(self, spec):
        self.path, self.rows = spec["path"], spec["rows"]
        self.out = pathlib.Path(tempfile.mkdtemp(dir=pathlib.Path(self.path).parent))

    def run(self):
        self.columns(lambda name, column: column.tofile(self.out / name))

    def describe(self):
        return {"amount": self.rows / torch.get_num_threads()}

    def __del__(self):
        shutil.rmtree(self.out, ignore_errors=True)


class Pandas(Prepare):
    def columns(self, write):
        import pandas
        table = pandas.read_csv(self.path, sep="\t", header=None, names=["label", *NUMBERS, *IDS],
                                dtype={name: str for name in IDS})
        for name in IDS:
            codes, _ = pandas.factorize(table[name].fillna("-1"), sort=True)
            write(name, codes.astype(numpy.uint32))
        for name in NUMBERS:
            column = table[name].fillna(0).to_numpy(numpy.float32)
            write(name, (column - column.min()) / (column.max() - column.min()))
        write("label", table["label"].to_numpy(numpy.uint8))


class Polars(Prepare):
    def columns(self, write):
        import polars
        types = {"label": polars.UInt8, **{name: polars.Float32 for name in NUMBERS}, **{name: polars.String for name in IDS}}
        table = polars.scan_csv(self.path, separator="\t", has_header=False, schema=types, quote_char=None).select(
            "label",
            *[((c := polars.col(name).fill_null(0)) - c.min()) / (c.max() - c.min()) for name in NUMBERS],
            *[polars.col(name).fill_null("-1").rank("dense") - 1 for name in IDS]).collect()
        for name in table.columns:
            write(name, table[name].to_numpy())


class Auc:
    def __init__(self, spec):
        generator = torch.Generator().manual_seed(1)
        self.labels = (torch.rand(spec["rows"], generator=generator) < 0.256).numpy()
        self.scores = torch.randn(spec["rows"], generator=generator).add_(torch.from_numpy(self.labels), alpha=0.5).numpy()

    def run(self):
        from sklearn.metrics import roc_auc_score
        return roc_auc_score(self.labels, self.scores)

    def describe(self):
        return {}

    def compare(self, tensors):
        self.labels, self.scores = tensors["labels"].numpy(), tensors["scores"].numpy()
        return {"auc": abs(self.run() - tensors["auc"].item())}


def make(spec):
    return {"pandas": Pandas, "polars": Polars, "auc": Auc}[spec["form"]](spec)
