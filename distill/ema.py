"""Mean teacher: a moving average of the student's own weights."""

from copy import deepcopy

import torch
from torch import nn


class Ema:
    """The average θ ← m·θ + (1-m)·student, m = min(decay, 1 - 1/step), moved once a step (Tarvainen & Valpola 2017,
    arXiv:1703.01780 §3, with a warm-up, so that the first weights do not linger).

    Buffers, such as batch norm's running figures, are copied: they are averages already.
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        self.net = deepcopy(student).eval().requires_grad_(False)
        self._decay = decay
        self.steps = 0

    @torch.no_grad()
    def follow(self, student: nn.Module) -> None:
        """Take in the student's weights after a step."""
        self.steps += 1
        share = 1 - min(self._decay, 1 - 1 / self.steps)
        torch._foreach_lerp_(list(self.net.parameters()), list(student.parameters()), share)
        for ours, theirs in zip(self.net.buffers(), student.buffers(), strict=True):
            ours.copy_(theirs)
