"""A vision transformer as PyTorch users write it, or WideNet on top of it: the model of a recipe that ours reports."""

import re

import torch
import torch.nn.functional as F
from common import compiled, error, parameter_count
from mixture import Mixture
from torch import nn


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, dim))


class Perceptron(nn.Sequential):
    def __init__(self, dim, hidden):
        super().__init__(nn.Linear(dim, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, dim))


class VisionTransformer(nn.Module):
    """Pre-norm blocks; attention and perceptron (or mixture) shared by all or one a block, layer norms always own."""

    def __init__(self, model, data, form):
        super().__init__()
        dim, depth, patch = model["dim"], model["depth"], model["patch"]
        self.depth, self.model = depth, model
        self.patch = nn.Conv2d(data["channels"], dim, patch, stride=patch)
        self.class_slot = model["class_slot"] == "zero"
        self.position = nn.Parameter(0.02 * torch.randn((data["image_size"] // patch) ** 2 + self.class_slot, dim))
        self.attention = nn.ModuleList(
            Attention(dim, model["heads"]) for _ in range(1 if model["share_attention"] else depth))
        router = model["router"]
        self.mixes = model["mixture_layers"] == -1
        self.feed = nn.ModuleList(
            Mixture(dim, model["expert_dim"] or model["mlp_dim"], router["experts"], router["top_k"],
                    router["capacity_factor"], router["balance_weight"], form)
            if self.mixes else Perceptron(dim, model["mlp_dim"])
            for _ in range(1 if model["share_mlp"] else depth))
        self.norm1 = nn.ModuleList(nn.LayerNorm(dim, eps=1e-6) for _ in range(depth))
        self.norm2 = nn.ModuleList(nn.LayerNorm(dim, eps=1e-6) for _ in range(depth))
        self.final_norm = nn.LayerNorm(dim, eps=1e-6)
        self.representation = nn.Linear(dim, dim) if model["representation"] else None
        self.head = nn.Linear(dim, data["classes"])

    def forward(self, images):
        x = self.patch(images).flatten(2).transpose(1, 2)
        if self.class_slot:
            x = F.pad(x, (0, 0, 1, 0))
        x = x + self.position
        side = 0
        for i in range(self.depth):
            x = x + self.attention[i % len(self.attention)](self.norm1[i](x))
            y = self.feed[i % len(self.feed)](self.norm2[i](x))
            if self.mixes:
                y, balance = y
                side = side + balance
            x = x + y
        x = self.final_norm(x)
        x = x[:, 0] if self.model["pooling"] == "token" else x.mean(1)
        if self.representation is not None:
            x = torch.tanh(self.representation(x))
        return self.head(x), side

    @torch.no_grad()
    def copy_from(self, tensors):
        """Takes our weights, by our names."""
        own = dict(self.named_parameters())
        for name, tensor in tensors.items():
            if not name.startswith("model.") or name.startswith("model.mixture."):
                continue
            name = re.sub(r"^model\.", "", name).replace(".qkv_", ".qkv.")
            name = re.sub(r"^mlp\.(\d+)\.in\.", r"feed.\1.0.", name)
            name = re.sub(r"^mlp\.(\d+)\.out\.", r"feed.\1.2.", name)
            own[name].copy_(tensor)
        if self.mixes:
            for i, mixture in enumerate(self.feed):
                mixture.copy_from(tensors, f"model.mixture.{i}.")


def open_model(spec):
    recipe = spec["recipe"]
    return VisionTransformer(recipe["model"], recipe["data"], spec.get("form"))


class TrainingStep:
    """Gradients to none, forward, loss and accuracy, backward, clipping, finite check, update; numbers to the host."""

    def __init__(self, spec):
        recipe = spec["recipe"]
        data, train, adamw = recipe["data"], recipe["train"], recipe["optimizer"]
        self.model = open_model(spec).train()
        self.limit = train["clip_norm"]
        self.autocast = spec.get("autocast", False)
        self.images = torch.randn(train["batch_size"], data["channels"], data["image_size"], data["image_size"])
        self.labels = torch.randint(data["classes"], (train["batch_size"],))
        named = list(self.model.named_parameters())
        vectors = [p for name, p in named if p.dim() < 2 or ".b_" in name]
        others = [p for name, p in named if not (p.dim() < 2 or ".b_" in name)]
        self.optimizer = torch.optim.AdamW(
            [{"params": others}, {"params": vectors, "weight_decay": 0.0}],
            lr=adamw["lr"], weight_decay=adamw["weight_decay"], betas=tuple(adamw["betas"]), eps=adamw["eps"], fused=True)
        self.loss = compiled(self.forward, spec)

    def forward(self, images, labels):
        logits, side = self.model(images)
        return F.cross_entropy(logits, labels) + side, logits.detach().argmax(1).eq(labels).float().mean()

    def run(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.autocast):
            loss, accuracy = self.loss(self.images, self.labels)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.limit, foreach=True)
        numbers = torch.stack([loss.detach(), accuracy, norm]).tolist()
        if not torch.tensor(numbers).isfinite().all():
            raise FloatingPointError("the loss or a gradient is not finite")
        self.optimizer.step()
        return numbers

    def describe(self):
        return {"parameters": parameter_count(self.model)}

    def compare(self, tensors):
        self.model.copy_from(tensors)
        self.images, self.labels = tensors["images"], tensors["labels"]
        steps = torch.tensor([self.run() for _ in range(len(tensors["losses"]))], dtype=torch.double)
        return {"losses": error(steps[:, 0], tensors["losses"]), "norms": error(steps[:, 2], tensors["norms"])}


class Inference:
    def __init__(self, spec):
        data, batch = spec["recipe"]["data"], spec["recipe"]["train"]["batch_size"]
        self.model = open_model(spec).eval()
        self.images = torch.randn(batch, data["channels"], data["image_size"], data["image_size"])
        self.function = compiled(self.model, spec)

    def run(self):
        # torch.compile freezes weights under no_grad only
        with torch.no_grad():
            return self.function(self.images)

    def describe(self):
        return {"parameters": parameter_count(self.model)}

    def compare(self, tensors):
        self.model.copy_from(tensors)
        self.images = tensors["images"]
        return {"logits": error(self.run()[0], tensors["logits"])}


def make(spec):
    return Inference(spec) if spec["mode"] == "infer" else TrainingStep(spec)
