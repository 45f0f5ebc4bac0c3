"""Contrastive representation: a row is known again across the networks, among rows of other classes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.losses.maps import as_rows, unit
from distill.losses.pairwise import features
from distill.losses.registry import Batch, Context, register_layered
from distill.taps import Pair
from stillhouse.spec.losses import Crd


@register_layered("crd", auto="penultimate", needs="any")
def _crd(params: Crd, context: Context) -> nn.Module:
    return Contrast(params, context)


class Contrast(nn.Module):
    """Σ over pairs of layers of two contrasts: student's rows with the remembered teacher's, and the other way round.

    Each is -mean over rows of [ln h(row itself) + K · mean over negatives of ln(1 - h)], with h = e / (e + K · Z),
    e = exp(x·y/τ), Z the mean of e over the first batch (Tian et al. 2020, arXiv:1910.10699 eq. 11 to 19, and its
    released code). x and y are linear maps of the layers [B, …], flattened, to `dim` numbers of length 1. Negatives are
    the rows of other classes among K = min(`negatives`, rows) of the training split, drawn for each step; with -1 for
    a label, all other rows. What is remembered of a row is momentum · old + (1 - momentum) · new, of length 1.

    float32 or wider inside, no gradient to the teacher's layers. Maps and memory belong to this loss. Memory: 8 · dim
    bytes for each training row.
    """

    labels: Tensor

    def __init__(self, params: Crd, context: Context) -> None:
        super().__init__()
        self._stream = context.stream
        self._drawn = min(params.negatives, len(context.labels))
        self.register_buffer("labels", context.labels)
        self.contrasts = nn.ModuleList(OfPair(pair, len(context.labels), params) for pair in context.pairs)

    def forward(self, batch: Batch) -> Tensor:
        """A scalar, the mean over rows."""
        draw = torch.randperm(len(self.labels), generator=self._stream("negatives", batch.step))
        drawn = draw[: self._drawn].to(self.labels.device)  # positions [K]
        own, there = self.labels[batch.positions], self.labels[drawn]
        other = own[:, None] != there[None]  # [B, K]
        other |= (own[:, None] < 0) | (there[None] < 0)
        other &= batch.positions[:, None] != drawn[None]
        return torch.stack([contrast(batch, drawn, other) for contrast in self.contrasts]).sum()


class OfPair(nn.Module):
    """Both contrasts of one pair of layers."""

    def __init__(self, pair: Pair, rows: int, params: Crd) -> None:
        super().__init__()
        self._pair = pair
        self.student = Side(math.prod(pair.student.shape), rows, params)
        self.teacher = Side(math.prod(pair.teacher.shape), rows, params)

    def forward(self, batch: Batch, drawn: Tensor, other: Tensor) -> Tensor:
        """A scalar; both memories have moved on."""
        student, teacher = features(self._pair, batch)
        s, t = self.student.embed(student), self.teacher.embed(teacher)  # [B, dim]
        value = self.teacher.told_apart(s, batch.positions, drawn, other)
        value = value + self.student.told_apart(t, batch.positions, drawn, other)
        self.student.remember(s, batch.positions)
        self.teacher.remember(t, batch.positions)
        return value


class Side(nn.Module):
    """One network: the map of its layer, and what is remembered of each training row."""

    memory: Tensor
    log_mean: Tensor

    def __init__(self, inputs: int, rows: int, params: Crd) -> None:
        super().__init__()
        self._temperature, self._momentum = params.temperature, params.momentum
        self.linear = nn.Linear(inputs, params.dim)
        bound = math.sqrt(3 / params.dim)  # rows of length 1 on average
        self.register_buffer("memory", torch.empty(rows, params.dim).uniform_(-bound, bound))
        self.register_buffer("log_mean", torch.tensor(math.nan))

    def embed(self, layer: Tensor) -> Tensor:
        """[B, …] → [B, dim] of length 1."""
        return unit(self.linear(as_rows(layer)))

    def told_apart(self, rows: Tensor, positions: Tensor, drawn: Tensor, other: Tensor) -> Tensor:
        """How badly `rows` [B, dim] of the other network are known by what is remembered here.

        `positions` [B] are their own, `drawn` [K] those of the candidates, `other` bool [B, K] which of these are
        negatives.
        """
        itself = (rows * self.memory[positions]).sum(1) / self._temperature  # [B]
        negatives = rows @ self.memory[drawn].T / self._temperature  # [B, K]
        threshold = self._log_mean_once(itself, negatives, other) + math.log(len(drawn))
        known = F.logsigmoid(itself - threshold)
        # ln(1 - h), mean over the negatives of each row; a row without any has none to be told from.
        kept_apart = F.logsigmoid(threshold - negatives).where(other, 0.0).sum(1) / other.sum(1).clamp(min=1)
        return -(known + len(drawn) * kept_apart).mean()

    @torch.no_grad()
    def remember(self, rows: Tensor, positions: Tensor) -> None:
        """Move what is remembered of `positions` [B] towards `rows` [B, dim]."""
        moved = self._momentum * self.memory[positions] + (1 - self._momentum) * rows
        self.memory[positions] = unit(moved)

    @torch.no_grad()
    def _log_mean_once(self, itself: Tensor, negatives: Tensor, other: Tensor) -> Tensor:
        """ln of the mean of e over the first batch; later ones keep it."""
        seen = torch.cat([itself[:, None], negatives.where(other, -math.inf)], dim=1)
        found = seen.flatten().logsumexp(0) - (other.sum() + len(itself)).log()
        # Chosen on the device: asking whether it is set would wait for it.
        self.log_mean.copy_(torch.where(self.log_mean.isnan(), found, self.log_mean))
        return self.log_mean.clone()
