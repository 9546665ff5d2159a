"""Zigzag ring attention as it is publicly written for PyTorch, on torch.distributed's Gloo: two processes, this one and one
that it starts.

Keys and values go round by batch_isend_irecv while a block is computed by PyTorch's fused kernel, blocks are merged by the
logarithms of their sums, and in the backward pass the gradients of keys and values go round behind them, one hop more. With
a causal mask rank n holds pieces n and 2 N - 1 - n of 2 N: the own block is causal, of those before only the first half of
the keys counts, of those behind only the second half of the queries.
"""

import ctypes
import datetime
import json
import os
import signal
import socket
import subprocess
import sys

import torch
import torch.distributed as dist
from common import error

attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
differentiate = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
END, RUN, COMPARE = range(3)


class Exchange:
    """To the next rank and from the one before; counts what is sent."""

    sent = 0

    def __init__(self, tensors):
        self.received = [torch.empty_like(tensor) for tensor in tensors]
        rank, size = dist.get_rank(), dist.get_world_size()
        operations = [dist.P2POp(dist.isend, tensor, (rank + 1) % size) for tensor in tensors]
        operations += [dist.P2POp(dist.irecv, tensor, (rank - 1) % size) for tensor in self.received]
        Exchange.sent += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self.requests = dist.batch_isend_irecv(operations)

    def wait(self):
        for request in self.requests:
            request.wait()
        return self.received


def merge(out, lse, more, more_lse):
    """Attention to two sets of keys together, in place."""
    weight = torch.sigmoid(more_lse - lse)
    out.sub_(weight.unsqueeze(3) * (out - more))
    lse.copy_(lse - torch.nn.functional.logsigmoid(lse - more_lse))


class RingAttention(torch.autograd.Function):
    """q, k, v [batch, heads, tokens of this rank, head_dim]"""

    @staticmethod
    def parts(step, causal, q, k, v):
        """What of the queries sees what of the keys: (first query, queries, keys, values, causal among themselves)."""
        half = k.size(2) // 2
        if step == 0 or not causal:
            return 0, q, k, v, causal
        if step <= dist.get_rank():
            return 0, q, k[:, :, :half], v[:, :, :half], False
        return half, q[:, :, half:], k, v, False

    @staticmethod
    def forward(context, q, k, v, causal):
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        context.causal, size = causal, dist.get_world_size()
        keys, values = k, v
        for step in range(size):
            exchange = Exchange([keys, values]) if step + 1 < size else None
            first, queries, some_keys, some_values, among = RingAttention.parts(step, causal, q, keys, values)
            block, block_lse = attend(queries, some_keys, some_values, 0.0, among)
            if step == 0:
                out, lse = block.contiguous(), block_lse.contiguous()
            else:
                merge(out[:, :, first:], lse[:, :, first:], block, block_lse)
            if exchange:
                keys, values = exchange.wait()
        context.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    def backward(context, grad_out):
        q, k, v, out, lse = context.saved_tensors
        grad_out = grad_out.contiguous()
        keys, values, size, gradients = k, v, dist.get_world_size(), None
        grad_q = torch.zeros_like(q)
        for step in range(size):
            exchange = Exchange([keys, values]) if step + 1 < size else None
            first, queries, some_keys, some_values, among = RingAttention.parts(step, context.causal, q, keys, values)
            part_q, part_k, part_v = differentiate(grad_out[:, :, first:], queries, some_keys, some_values, out[:, :, first:],
                                                   lse[:, :, first:].contiguous(), 0.0, among)
            grad_q[:, :, first:] += part_q
            if gradients is None:
                here = [part_k.contiguous(), part_v.contiguous()]
            else:
                here = gradients.wait()
                for whole, part in zip(here, (part_k, part_v)):
                    whole[:, :, : part.size(2)] += part
            if exchange:
                keys, values = exchange.wait()
            gradients = Exchange(here)
        grad_k, grad_v = gradients.wait()
        return grad_q, grad_k, grad_v, None


def zigzag(whole, rank, size):
    """A rank's pieces of sequences along dimension 1."""
    pieces = whole.chunk(2 * size, 1)
    return torch.cat([pieces[rank], pieces[2 * size - 1 - rank]], 1)


def gathered(own):
    """Whole sequences in their own order, of which every rank has its pieces."""
    size = dist.get_world_size()
    chunks = [torch.empty_like(own) for _ in range(size)]
    dist.all_gather(chunks, own.contiguous())
    halves = [chunk.chunk(2, 1) for chunk in chunks]
    return torch.cat([half[0] for half in halves] + [half[1] for half in reversed(halves)], 1)


class Part:
    def __init__(self, spec, rank, port):
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=spec["ranks"],
                                timeout=datetime.timedelta(days=1))
        self.spec = spec
        shape = 1, spec["tokens"], 3, spec["heads"], spec["head_dim"]
        self.take(torch.randn(shape), torch.randn(shape[:2] + shape[3:]))

    def take(self, qkv, grad):
        place = dist.get_rank(), dist.get_world_size()
        self.qkv, self.grad = zigzag(qkv, *place).contiguous().requires_grad_(), zigzag(grad, *place).contiguous()

    def step(self):
        self.qkv.grad = None
        Exchange.sent = 0
        q, k, v = self.qkv.permute(2, 0, 3, 1, 4)
        out = RingAttention.apply(q, k, v, self.spec["causal"]).transpose(1, 2)
        out.backward(self.grad)
        return out.detach()

    def told(self, task):
        word = torch.tensor([task])
        dist.broadcast(word, 0)
        return word.item()

    def perform(self, task, tensors=None):
        if task == RUN:
            self.step()
            dist.barrier()
        elif task == COMPARE:
            shape = 1, self.spec["tokens"], 3, self.spec["heads"], self.spec["head_dim"]
            tensors = tensors or {"qkv": torch.empty(shape), "grad": torch.empty(shape[:2] + shape[3:])}
            for name in ("qkv", "grad"):
                dist.broadcast(tensors[name], 0)
            self.take(tensors["qkv"], tensors["grad"])
            out = self.step()
            return {"out": gathered(out), "grad.qkv": gathered(self.qkv.grad)}


class Ring(Part):
    """Rank 0, which answers the driver."""

    def __init__(self, spec):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, __file__, json.dumps(spec)]
        self.others = [subprocess.Popen([*command, str(rank), str(port)], stdin=subprocess.DEVNULL)
                       for rank in range(1, spec["ranks"])]
        super().__init__(spec, 0, port)

    def run(self):
        self.perform(self.told(RUN))

    def describe(self):
        if Exchange.sent == 0:
            self.run()
        return {"processes": dist.get_world_size(), "sent": Exchange.sent}

    def compare(self, tensors):
        found = self.perform(self.told(COMPARE), {name: tensor.contiguous() for name, tensor in tensors.items()})
        return {name: error(found[name], tensors[name]) for name in found}

    def __del__(self):
        if dist.is_initialized():
            self.told(END)


def make(spec):
    return Ring(spec)


def main():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: not longer than rank 0
    spec, rank, port = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(1)
    part = Part(spec, rank, port)
    while (task := part.told(END)) != END:
        part.perform(task)


if __name__ == "__main__":
    main()
