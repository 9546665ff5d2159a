"""What several peers share."""

import torch
import torch.nn.functional as F


def gelu(x):
    return F.gelu(x, approximate="tanh")


def compiled(function, spec):
    return torch.compile(function, dynamic=False) if spec.get("compile") else function


def parameter_count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def error(found, wanted):
    """Largest difference, as a share of the largest number wanted."""
    scale = wanted.abs().max().clamp_min(1e-30)
    return ((found.detach() - wanted).abs().max() / scale).item()
