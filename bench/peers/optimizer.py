"""torch.optim's AdamW, fused and foreach, and LAMB, which torch.optim lacks: by foreach operators, and tensor by tensor."""

import torch
from common import error

BETAS = (0.9, 0.999)


class Lamb:
    """You et al. 2019: u = m / (sqrt(v) + eps) + decay w; w -= rate |w| / |u| u. Vectors: no decay, ratio 1."""

    def __init__(self, parameters, lr, weight_decay, eps=1e-6):
        self.parameters, self.lr, self.weight_decay, self.eps, self.t = parameters, lr, weight_decay, eps, 0
        self.m = [torch.zeros_like(p) for p in parameters]
        self.v = [torch.zeros_like(p) for p in parameters]
        self.matrices = [i for i, p in enumerate(parameters) if p.dim() > 1]

    def corrections(self):
        self.t += 1
        return 1 - BETAS[0] ** self.t, (1 - BETAS[1] ** self.t) ** 0.5

    def pick(self, tensors):
        return [tensors[i] for i in self.matrices]


class ForeachLamb(Lamb):
    @torch.no_grad()
    def step(self):
        grads = [p.grad for p in self.parameters]
        scale, root_scale = self.corrections()
        torch._foreach_lerp_(self.m, grads, 1 - BETAS[0])
        torch._foreach_mul_(self.v, BETAS[1])
        torch._foreach_addcmul_(self.v, grads, grads, 1 - BETAS[1])
        root = torch._foreach_sqrt(self.v)
        torch._foreach_div_(root, root_scale)
        torch._foreach_add_(root, self.eps)
        update = torch._foreach_div(self.m, root)
        torch._foreach_div_(update, scale)
        if self.matrices:
            weights, changes = self.pick(self.parameters), self.pick(update)
            torch._foreach_add_(changes, weights, alpha=self.weight_decay)
            for change, w, u in zip(changes, torch._foreach_norm(weights), torch._foreach_norm(changes)):
                change.mul_(torch.where((w > 0) & (u > 0), w / u, 1.0))
        torch._foreach_add_(self.parameters, update, alpha=-self.lr)


class LoopLamb(Lamb):
    @torch.no_grad()
    def step(self):
        scale, root_scale = self.corrections()
        for p, m, v in zip(self.parameters, self.m, self.v):
            m.mul_(BETAS[0]).add_(p.grad, alpha=1 - BETAS[0])
            v.mul_(BETAS[1]).addcmul_(p.grad, p.grad, value=1 - BETAS[1])
            update = (m / scale).div_(v.sqrt().div_(root_scale).add_(self.eps))
            if p.dim() > 1:
                update.add_(p, alpha=self.weight_decay)
                w, u = p.norm(), update.norm()
                update.mul_(torch.where((w > 0) & (u > 0), w / u, 1.0))
            p.add_(update, alpha=-self.lr)


def adamw(parameters, lr, weight_decay, **form):
    groups = [{"params": [p for p in parameters if p.dim() > 1]},
              {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=BETAS, weight_decay=weight_decay,
                             **form)


FORMS = {
    ("adamw", "fused"): lambda *a: adamw(*a, fused=True),
    ("adamw", "foreach"): lambda *a: adamw(*a, foreach=True),
    ("lamb", "foreach"): ForeachLamb,
    ("lamb", "loop"): LoopLamb,
}


class Step:
    def __init__(self, spec):
        self.spec = spec
        self.parameters = [(0.02 * torch.randn(shape)).requires_grad_() for shape in spec["tensors"]]
        for p in self.parameters:
            p.grad = 0.01 * torch.randn_like(p)
        self.start()

    def start(self):
        options = self.spec["optimizer"]
        self.optimizer = FORMS[options["name"], self.spec["form"]](self.parameters, options["lr"],
                                                                           options["weight_decay"])

    def run(self):
        self.optimizer.step()

    def describe(self):
        return {"parameters": sum(p.numel() for p in self.parameters)}

    def compare(self, tensors):
        with torch.no_grad():
            for i, p in enumerate(self.parameters):
                p.copy_(tensors[f"before.{i:05}"])
                p.grad = tensors[f"grad.{i:05}"]
        self.start()
        for _ in range(3):
            self.run()
        # of what was changed, not of the weights: three small steps change little
        changes = [(p.detach() - tensors[f"before.{i:05}"], tensors[f"after.{i:05}"] - tensors[f"before.{i:05}"])
                   for i, p in enumerate(self.parameters)]
        return {"change": max(error(found, wanted) for found, wanted in changes)}


def make(spec):
    return Step(spec)
