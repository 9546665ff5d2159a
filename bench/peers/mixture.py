"""The mixture layer as PyTorch users write it: the original's one-hot einsum, and three index-based forms.

All route alike (softmax, top K, first choices served first, `capacity_factor` slots an expert or no limit) and give the
same numbers. Which one is fastest depends on size and set-up; bench/run.py takes the best.
"""

import torch
from common import compiled, error, gelu, parameter_count
from torch import nn


def per_expert(*shape):
    return nn.ParameterList([nn.Parameter(torch.zeros(shape[1:])) for _ in range(shape[0])])


class Mixture(nn.Module):
    """x [samples, tokens, dim] -> (y of the same shape, balance loss). `form`: einsum, slices, bmm or grouped."""

    def __init__(self, dim, hidden, experts, k, capacity_factor, balance_weight, form):
        super().__init__()
        self.experts, self.k, self.form = experts, k, form
        self.capacity_factor, self.balance_weight = capacity_factor, balance_weight
        self.router = nn.Parameter(torch.randn(dim, experts) * (2 / (dim + experts)) ** 0.5)
        # experts of their own spare the slices form one large gradient of zeros per expert
        stacked = per_expert if form == "slices" else lambda *shape: nn.Parameter(torch.zeros(shape))
        self.w_in, self.b_in = stacked(experts, dim, hidden), stacked(experts, hidden)
        self.w_out, self.b_out = stacked(experts, hidden, dim), stacked(experts, dim)
        for weight in (self.w_in, self.w_out):
            for expert in weight:
                nn.init.xavier_uniform_(expert.data)

    def forward(self, x):
        flat = x.flatten(0, 1)
        probabilities = torch.softmax(flat @ self.router, 1)
        gate, index = probabilities.topk(self.k, dim=1)
        # assignments, all first choices before all second ones
        gate, expert = gate.t().flatten(), index.t().flatten()
        factor = self.capacity_factor if self.training else 0
        capacity = int(flat.size(0) * factor * self.k / self.experts) if factor else None
        y = getattr(self, self.form)(flat, expert, gate, capacity).view_as(x)
        share = torch.bincount(expert, minlength=self.experts) / expert.numel()
        balance = self.balance_weight * self.experts * (share * probabilities.mean(0)).sum()
        return y, balance

    def einsum(self, x, expert, gate, capacity):
        """The original's way: one-hot dispatch and combine tensors [tokens, experts, capacity]."""
        chosen = nn.functional.one_hot(expert, self.experts)
        place = ((chosen.cumsum(0) - 1) * chosen).sum(1)
        if capacity is None:
            capacity = int(chosen.sum(0).max())
        kept = (place < capacity).to(x.dtype)
        slot = nn.functional.one_hot(place.clamp_max(capacity - 1), capacity).to(x.dtype) * kept[:, None]
        chosen = chosen.to(x.dtype).view(self.k, -1, self.experts)
        slot = slot.view(self.k, -1, capacity)
        dispatch = torch.einsum("kne,knc->nec", chosen, slot)
        combine = torch.einsum("kn,kne,knc->nec", gate.view(self.k, -1), chosen, slot)
        rows = torch.einsum("nec,nd->ecd", dispatch, x)
        hidden = gelu(torch.einsum("ecd,edf->ecf", rows, self.w_in) + self.b_in[:, None])
        answer = torch.einsum("ecf,efd->ecd", hidden, self.w_out) + self.b_out[:, None]
        return torch.einsum("nec,ecd->nd", combine, answer)

    def sort(self, expert, capacity):
        """Assignments by expert, those beyond the capacity last or left out, and how many each expert has."""
        order = expert.argsort(stable=True)
        counts = torch.bincount(expert, minlength=self.experts)
        place = torch.arange(expert.numel()) - (counts.cumsum(0) - counts)[expert[order]]
        return order, counts, place

    def sorted_rows(self, x, expert, capacity):
        order, counts, place = self.sort(expert, capacity)
        if capacity is not None:
            order, counts = order[place < capacity], counts.clamp_max(capacity)
        token = order % x.size(0)
        return order, token, counts, x.index_select(0, token)

    def slices(self, x, expert, gate, capacity):
        """Rows sorted by expert, one pair of products an expert on its own slice."""
        order, token, counts, rows = self.sorted_rows(x, expert, capacity)
        answers = [
            torch.addmm(b_out, gelu(torch.addmm(b_in, part, w_in)), w_out)
            for part, w_in, b_in, w_out, b_out in zip(
                rows.split(counts.tolist()), self.w_in, self.b_in, self.w_out, self.b_out)
        ]
        weighted = torch.cat(answers) * gate[order, None]
        return torch.zeros_like(x).index_add(0, token, weighted)

    def grouped(self, x, expert, gate, capacity):
        """The same with PyTorch's grouped product; biases are gathered by row."""
        order, token, counts, rows = self.sorted_rows(x, expert, capacity)
        ends = counts.cumsum(0).to(torch.int32)
        own = expert[order]
        hidden = gelu(nn.functional.grouped_mm(rows, self.w_in, offs=ends) + self.b_in[own])
        answer = nn.functional.grouped_mm(hidden, self.w_out, offs=ends) + self.b_out[own]
        return torch.zeros_like(x).index_add(0, token, answer * gate[order, None])

    def bmm(self, x, expert, gate, capacity):
        """Every expert's rows padded to the capacity (or the largest count) and multiplied in one batch."""
        order, counts, place = self.sort(expert, capacity)
        if capacity is None:
            capacity = int(counts.max())
        nowhere = self.experts * capacity  # a row of zeros behind the others
        slot = torch.where(place < capacity, expert[order] * capacity + place, nowhere)
        source = torch.full((nowhere + 1,), x.size(0)).index_copy(0, slot, order % x.size(0))[:-1]
        rows = torch.cat([x, x.new_zeros(1, x.size(1))]).index_select(0, source).view(self.experts, capacity, -1)
        hidden = gelu(torch.baddbmm(self.b_in[:, None], rows, self.w_in))
        answer = torch.baddbmm(self.b_out[:, None], hidden, self.w_out).flatten(0, 1)
        answer = torch.cat([answer, answer.new_zeros(1, answer.size(1))])
        slot_of = torch.empty_like(slot).index_copy(0, order, slot)
        return (answer.index_select(0, slot_of) * gate[:, None]).view(self.k, *x.shape).sum(0)

    @torch.no_grad()
    def copy_from(self, tensors, prefix):
        for name in ("w_in", "b_in", "w_out", "b_out"):
            for own, given in zip(getattr(self, name), tensors[prefix + name]):
                own.data.copy_(given)
        self.router.data.copy_(tensors[prefix + "router.weight"])

    def gradient(self, name):
        if name == "router.weight":
            return self.router.grad
        parameter = getattr(self, name)
        return torch.stack([expert.grad for expert in parameter]) if self.form == "slices" else parameter.grad


class Layer:
    def __init__(self, spec):
        dim = spec["dim"]
        self.layer = Mixture(dim, 4 * dim, spec["experts"], spec["k"], 1.2, 0.01, spec["form"])
        self.x = torch.randn(1, spec["tokens"], dim, requires_grad=True)
        self.grad = torch.randn_like(self.x)
        self.function = compiled(self.layer, spec)

    def run(self):
        self.layer.zero_grad(set_to_none=True)
        self.x.grad = None
        y, balance = self.function(self.x)
        torch.autograd.backward([y, balance], [self.grad, None])
        return y, balance

    def describe(self):
        return {"parameters": parameter_count(self.layer)}

    def compare(self, tensors):
        self.layer.copy_from(tensors, "model.")
        self.x, self.grad = tensors["x"].requires_grad_(), tensors["grad"]
        y, balance = self.run()
        errors = {"y": error(y, tensors["y"]), "balance": error(balance, tensors["balance"]),
                  "grad.x": error(self.x.grad, tensors["grad.x"])}
        for name in ("router.weight", "w_in", "b_in", "w_out", "b_out"):
            errors["grad." + name] = error(self.layer.gradient(name), tensors["grad." + name])
        return errors


def make(spec):
    return Layer(spec)
