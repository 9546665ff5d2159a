"""Fine-tunes published BERT weights on a task of GLUE with Python's transformers, as recipes/glue does: the same optimiser, schedule,
batches and lengths. The other column of experiments/glue_minilm.

Usage: glue.py cola|rte|sst2 WEIGHTS GLUE_FOLDER SEED EPOCHS LEARNING_RATE
"""

import gzip
import json
import pathlib
import random
import sys
import time

import torch
from transformers import AutoTokenizer, BertForSequenceClassification

BATCH, LENGTH, WARM_UP, CLIP = 32, 128, 0.1, 1.0


def lines(folder, split):
    path = folder / f"{split}.tsv"
    packed = path.with_suffix(".tsv.gz")
    text = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    return [line.split("\t") for line in text.decode().split("\n") if line]


def rows(task, glue, split):
    """(text, second text or None, label) of a split"""
    if task == "cola":
        return [(cells[3], None, int(cells[1])) for cells in lines(glue / "CoLA", split)]
    if task == "rte":
        return [(cells[1], cells[2], int(cells[3] != "entailment")) for cells in lines(glue / "RTE", split)[1:]]
    return [(cells[0], None, int(cells[1])) for cells in lines(glue / "SST-2", split)[1:]]


class Tuning:
    def __init__(self, task, weights, glue):
        self.train, self.dev = rows(task, glue, "train"), rows(task, glue, "dev")
        self.tokenizer = AutoTokenizer.from_pretrained(weights)
        self.model = BertForSequenceClassification.from_pretrained(weights, num_labels=2)

    def encoded(self, items):
        texts = [[text for text, _, _ in items]]
        if items[0][1] is not None:
            texts.append([second for _, second, _ in items])
        return self.tokenizer(*texts, padding=True, truncation="longest_first", max_length=LENGTH, return_tensors="pt")

    def learn(self, epochs, rate):
        matrices = [p for p in self.model.parameters() if p.dim() >= 2]
        vectors = [p for p in self.model.parameters() if p.dim() < 2]
        optimizer = torch.optim.AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], lr=rate, weight_decay=0.01,
                                      eps=1e-6)
        steps = int(epochs * len(self.train) / BATCH)
        warm_up = max(1, round(WARM_UP * steps))
        order = []
        self.model.train()
        for step in range(steps):
            while len(order) < BATCH:
                order += random.sample(range(len(self.train)), len(self.train))
            items, order = [self.train[i] for i in order[:BATCH]], order[BATCH:]
            for group in optimizer.param_groups:
                group["lr"] = rate * (step / warm_up if step < warm_up else (steps - step) / (steps - warm_up))
            loss = self.model(**self.encoded(items), labels=torch.tensor([label for _, _, label in items])).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            optimizer.step()
        return steps

    @torch.no_grad()
    def measure(self):
        self.model.eval()
        logits = torch.cat([self.model(**self.encoded(self.dev[i:i + 64])).logits for i in range(0, len(self.dev), 64)])
        truth = torch.tensor([label for _, _, label in self.dev])
        guess = logits.argmax(1)
        both = torch.stack([guess, truth]).double()
        return {"accuracy": (guess == truth).double().mean().item(), "matthews": torch.corrcoef(both)[0, 1].nan_to_num().item(),
                "loss": torch.nn.functional.cross_entropy(logits, truth).item()}


def main():
    task, weights, glue, seed, epochs, rate = sys.argv[1:]
    torch.manual_seed(int(seed))
    random.seed(int(seed))
    tuning = Tuning(task, weights, pathlib.Path(glue))
    start = time.monotonic()
    steps = tuning.learn(float(epochs), float(rate))
    print(json.dumps({"task": task, "seed": int(seed), "steps": steps, **tuning.measure(), "seconds": time.monotonic() - start}))


if __name__ == "__main__":
    main()
