"""DeepFM on tables of Criteo's shape: the official method as a framework does it, and FBGEMM's fused tables."""

import torch
import torch.nn.functional as F
from common import parameter_count
from torch import nn

EXPONENT, SHIFT = 1.1, 10.0
RATIO, FLOOR, L2 = 1.0, 1e-5, 1e-5


def draw(rows, sizes, numerics, generator):
    """One batch of ids by a power law, spread over the tables as ours are."""
    size = torch.tensor(sizes, dtype=torch.double)
    power = 1 - EXPONENT
    low, high = SHIFT**power, (size + SHIFT) ** power
    u = torch.rand(rows, len(sizes), dtype=torch.double, generator=generator)
    rank = (low + u * (high - low)) ** (1 / power) - SHIFT
    rank = torch.minimum(rank.clamp_min(0), size - 1).long()
    ids = rank * 2654435761 % torch.tensor(sizes)
    return ids, torch.rand(rows, numerics, generator=generator), (torch.rand(rows, generator=generator) < 0.25).float()


class DeepFm(nn.Module):
    """Behind the tables: first-order weights, pairs, three layers of 400."""

    def __init__(self, fields, numerics, dim):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.numeric = nn.Linear(numerics, 1, bias=False)
        widths = [fields * dim + numerics, 400, 400, 400]
        layers = []
        for a, b in zip(widths, widths[1:]):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.mlp, self.out = nn.Sequential(*layers), nn.Linear(400, 1, bias=False)

    def forward(self, embeddings, linear, numerics):
        total = embeddings.sum(1)
        pairs = 0.5 * (total.square() - embeddings.square().sum(1)).sum(1)
        h = self.mlp(torch.cat([embeddings.flatten(1), numerics], 1))
        return self.bias + linear.sum(1) + self.numeric(numerics).squeeze(1) + pairs + self.out(h).squeeze(1)


class Step:
    def __init__(self, spec):
        self.sizes, self.dim = spec["sizes"], 10
        generator = torch.Generator().manual_seed(1)
        self.batches = [draw(spec["batch"], self.sizes, spec["numerics"], generator) for _ in range(spec["pool"])]
        self.offsets = torch.tensor([0, *self.sizes[:-1]]).cumsum(0)
        self.model = DeepFm(len(self.sizes), spec["numerics"], self.dim)
        self.done = 0
        if spec["mode"] == "train":
            self.dense = torch.optim.Adam(self.model.parameters(), lr=8e-4, eps=1e-7, fused=True)
        self.open_tables()

    def next(self):
        self.done += 1
        return self.batches[self.done % len(self.batches)]

    def loss(self, embeddings, linear, numerics, labels):
        loss = F.binary_cross_entropy_with_logits(self.model(embeddings, linear, numerics), labels)
        return loss + L2 * self.model.numeric.weight.square().sum()

    def describe(self):
        return {"parameters": parameter_count(self.model)}


class Official(Step):
    """Dense gradients; L2, norms, clip and Adam over whole tables (cowclip.md 2.4, 2.5), in as few passes as PyTorch allows."""

    def open_tables(self):
        rows = sum(self.sizes)
        self.tables = [nn.Parameter(torch.randn(rows, self.dim).mul_(1e-2)), nn.Parameter(torch.zeros(rows, 1))]
        self.adam = torch.optim.Adam(self.tables, lr=1e-4, eps=1e-7, fused=True)

    @torch.no_grad()
    def clip(self, flat):
        w, g = self.tables[0], self.tables[0].grad
        count = torch.bincount(flat, minlength=w.shape[0]).clamp_(min=1)
        limit = w.norm(dim=1).clamp_(min=RATIO * self.dim**0.5 * FLOOR).mul_(RATIO).mul_(count)
        g.mul_(limit.div_(torch.maximum(g.norm(dim=1), limit)).unsqueeze(1))

    def run(self):
        ids, numerics, labels = self.next()
        self.dense.zero_grad(set_to_none=True)
        self.adam.zero_grad(set_to_none=True)
        flat = ids + self.offsets
        embeddings = F.embedding(flat, self.tables[0])
        loss = self.loss(embeddings, F.embedding(flat, self.tables[1]).squeeze(2), numerics, labels)
        loss.backward()
        with torch.no_grad():
            for table in self.tables:
                table.grad.add_(table, alpha=2 * L2)
        self.clip(flat.flatten())
        self.dense.step()
        self.adam.step()
        return loss.item()


class Fused(Step):
    """FBGEMM's tables of all fields in one call, the row-wise optimiser fused into the backward pass; no catch-up, no clip."""

    def open_tables(self):
        import fbgemm_gpu  # noqa: F401  (loads the operators)
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen)
        width = 12  # a multiple of 4: ten numbers, the first-order weight, one unused
        self.tables = SplitTableBatchedEmbeddingBagsCodegen(
            [(size, width, EmbeddingLocation.HOST, ComputeDevice.CPU) for size in self.sizes],
            optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD, learning_rate=1e-2, eps=1e-7)

    def rows(self, ids):
        batch, fields = ids.shape
        found = self.tables(ids.t().reshape(-1), torch.arange(batch * fields + 1)).view(batch, fields, 12)
        return found[:, :, : self.dim], found[:, :, self.dim]

    def run(self):
        ids, numerics, labels = self.next()
        self.dense.zero_grad(set_to_none=True)
        embeddings, linear = self.rows(ids)
        loss = self.loss(embeddings, linear, numerics, labels)
        loss.backward()
        self.dense.step()
        return loss.item()


class Score(Official):
    """The forward pass in eager PyTorch."""

    def open_tables(self):
        rows = sum(self.sizes)
        self.tables = [torch.randn(rows, self.dim).mul_(1e-2), torch.zeros(rows, 1)]
        self.model.eval()

    def run(self):
        ids, numerics, _ = self.next()
        with torch.inference_mode():
            flat = ids + self.offsets
            logits = self.model(F.embedding(flat, self.tables[0]), F.embedding(flat, self.tables[1]).squeeze(2), numerics)
            return logits.sigmoid()


def make(spec):
    return {"official": Official, "fbgemm": Fused, "score": Score}[spec["form"]](spec)
