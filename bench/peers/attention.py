"""Attention by PyTorch's scaled_dot_product_attention, which on the CPU is a fused kernel of its own.

`form`: fused, on the views of one product as they lie; heads, on copies with each head's rows together, which are made in
every repetition as a model would have to make them.
"""

import torch
import torch.nn.functional as F
from common import compiled, error


class Attention:
    def __init__(self, spec):
        self.spec = spec
        self.train = spec["train"]
        shape = 1, spec["tokens"], 3, spec["heads"], spec["head_dim"]
        self.qkv = torch.randn(shape).requires_grad_(self.train)
        self.grad = torch.randn(shape[:2] + shape[3:])
        self.function = compiled(self.forward, spec)

    def forward(self, qkv):
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if self.spec["form"] == "heads":
            q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.spec.get("causal", False)).transpose(1, 2)

    def run(self):
        self.qkv.grad = None
        out = self.function(self.qkv)
        if self.train:
            out.backward(self.grad)
        return out

    def describe(self):
        return {}

    def compare(self, tensors):
        self.qkv, self.grad = tensors["qkv"].requires_grad_(self.train), tensors["grad"]
        errors = {"out": error(self.run(), tensors["out"])}
        if self.train:
            errors["grad.qkv"] = error(self.qkv.grad, tensors["grad.qkv"])
        return errors


def make(spec):
    return Attention(spec)
