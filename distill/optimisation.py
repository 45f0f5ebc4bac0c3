"""Step sizes and optimizers."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from stillhouse.spec.training import Schedule


def step_size(step: int, *, peak: float, steps: int, warmup: int, schedule: Schedule) -> float:
    """The learning rate of optimizer step `step` (from 0) out of `steps`: a pure function, so nothing to save.

    It rises linearly to `peak` over the first `warmup` steps, then falls to zero at `steps` along half a cosine
    (Loshchilov and Hutter 2016, arXiv:1608.03983, without restarts) or a line, or stays.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return peak * (1 + math.cos(math.pi * done)) / 2
    return peak * (1 - done) if schedule == "linear" else peak


def optimizer(
    net: nn.Module,
    name: Literal["adamw", "adam", "sgd"],
    beside: nn.Module | None = None,
    *,
    weight_decay: float,
    momentum: float,
) -> torch.optim.Optimizer:
    """The optimizer of all weights of `net` that are not frozen, and of a module that trains `beside` it; its step size
    is set before each step.

    Weight decay spares biases and norm parameters (everything of one dimension), as the field does since
    He et al. 2018 (arXiv:1812.01187 §3.1): pulling those to zero regularises nothing. For adamw it is decoupled
    (arXiv:1711.05101), for adam and sgd it is added to the gradient. sgd with momentum is Nesterov's.
    """
    groups = [
        {"params": list(_of_rank(module.parameters(), matrices=matrices)), "weight_decay": decay}
        for module in (net, beside)
        if module is not None
        for matrices, decay in ((True, weight_decay), (False, 0.0))
    ]
    groups = [group for group in groups if group["params"]]
    # fused: one kernel for all weights instead of a dozen calls for each; a third of a small network's step.
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=momentum > 0, fused=True)
    if name == "adam":
        return torch.optim.Adam(groups, lr=0.0, fused=True)
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


@torch.no_grad()
def shorten(net: nn.Module, max_norm: float) -> None:
    """Scale down, in place, every row of a linear layer's weight [out, in] that is longer than `max_norm`."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.copy_(layer.weight.renorm(2, 0, max_norm))


def _of_rank(parameters: Iterable[nn.Parameter], *, matrices: bool) -> Iterable[nn.Parameter]:
    return (p for p in parameters if p.requires_grad and (p.dim() > 1) == matrices)
