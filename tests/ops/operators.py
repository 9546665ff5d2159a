"""Loads libstoa in Python and holds torch.ops.stoa.* with its gradients to PyTorch's own. Usage: operators.py LIBRARY"""
import sys

import torch
import torch.nn.functional as F

torch.ops.load_library(sys.argv[1])
torch.manual_seed(0)


def leaf(*shape):
    return torch.randn(*shape).requires_grad_()


def same(name, fused, plain, leaves):
    """Both results and all gradients, for one random gradient of the result."""
    grad = torch.randn_like(plain)
    wanted = torch.autograd.grad(plain, leaves, grad)
    found = torch.autograd.grad(fused, leaves, grad)
    for what, a, b in [("result", fused, plain), *[(f"gradient {i}", a, b) for i, (a, b) in enumerate(zip(found, wanted))]]:
        if not torch.allclose(a, b, rtol=1e-4, atol=1e-4):
            sys.exit(f"{name}: {what} differs by {(a - b).abs().max().item()}")


ops = torch.ops.stoa
x, w, b = leaf(5, 7, 12), leaf(20, 12), leaf(20)
same("linear", ops.linear(x, w, b, 1), F.gelu(F.linear(x, w, b), approximate="tanh"), [x, w, b])
same("bias_activation", ops.bias_activation(x, b[:12], 3), F.relu(x + b[:12]), [x, b])

g, h = leaf(12), leaf(12)
same("layer_norm", ops.layer_norm(x, g, h, 1e-6), F.layer_norm(x, (12,), g, h, 1e-6), [x, g, h])
y = leaf(5, 7, 12)
total, normed = ops.residual_norm(x, y, None, g, h, 1e-6)
plain = F.layer_norm(x + y, (12,), g, h, 1e-6)
same("residual_norm", torch.cat([total, normed], -1), torch.cat([x + y, plain], -1), [x, y, g, h])

qkv = leaf(2, 9, 36)
q, k, v = qkv.view(2, 9, 3, 3, 4).permute(2, 0, 3, 1, 4)
same("attention", ops.attention(qkv, 3), F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 9, 12), [qkv])

x, w, b = leaf(9, 12), leaf(150, 12), leaf(150)
target = torch.randint(150, (9,))
target[4] = -100
plain = F.cross_entropy(F.linear(x, w, b), target, label_smoothing=0.1)
loss, row_loss, correct = ops.linear_cross_entropy(x, w, b, target, 0.1)
same("linear_cross_entropy", loss, plain, [x, w, b])
assert not row_loss.requires_grad and correct.dtype == torch.bool and row_loss[4] == 0, "linear_cross_entropy by rows"
meta = [t.detach().to("meta") for t in (x, w, target)]
for learns in (False, True):
    assert ops.linear_cross_entropy(meta[0].requires_grad_(learns), meta[1], None, meta[2])[1].shape == (9,), "shapes alone"

tokens, experts = 30, 3
x, gate = leaf(tokens, 8), leaf(tokens)
weights = [leaf(experts, 8, 16), leaf(experts, 16), leaf(experts, 16, 8), leaf(experts, 8)]
expert = torch.randint(experts, (tokens,))
hidden = F.gelu(torch.einsum("td,tdf->tf", x, weights[0][expert]) + weights[1][expert], approximate="tanh")
plain = gate[:, None] * (torch.einsum("tf,tfd->td", hidden, weights[2][expert]) + weights[3][expert])
same("mixture", ops.mixture(x, torch.arange(tokens), expert, gate, *weights), plain, [x, gate, *weights])

with torch.autocast("cpu", torch.bfloat16):
    y = ops.linear(x.detach(), weights[0][0].detach().t().contiguous(), None, 0)
assert torch.allclose(y.float(), (x @ weights[0][0]).detach(), rtol=0.05, atol=0.05), "linear under autocast"
assert ops.linear(x.to("meta"), weights[0][0].t().to("meta"), None, 0).shape == (tokens, 16)
print("alike")
